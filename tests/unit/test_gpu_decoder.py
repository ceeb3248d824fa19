"""The GPU's decoder, computed on the CPU in fp32: it gives what transformers' `generate` gives, in fewer launches."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from trueup.decoding.batching import complete
from trueup.gpu import llama
from trueup.gpu.decoder import Decoder, in_order
from trueup.gpu.graphs import Steps

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
SCALED = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama, biases everywhere": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama, scaled rotation": (
        LlamaForCausalLM,
        LlamaConfig,
        {"rope_parameters": {**SCALED, "rope_theta": 10000.0, "original_max_position_embeddings": 16}},
    ),
    "llama, heads of another width, gelu": (LlamaForCausalLM, LlamaConfig, {"head_dim": 32, "hidden_act": "gelu"}),
    "llama, no shared heads": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 4}),
    "mistral, window shorter than the text": (MistralForCausalLM, MistralConfig, {"sliding_window": 5}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen2, window in some layers": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 9, 10, 11], [60, 61], [5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 7, 8], [9]]
NEW = 9
END = 2


@functools.cache
def policy(family: str, four_bit: bool = False) -> Any:
    """A random model in fp32 with an adapter that changes it, on some of its maps."""
    made, config, changes = FAMILIES[family]
    torch.manual_seed(0)
    whole = made(config(**SHAPE | changes)).float()
    for name, parameter in whole.named_parameters():
        if "bias" in name or "norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    if four_bit:
        whole = quantized(whole)
    asked = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"])
    model = get_peft_model(whole, asked).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn_like(parameter)
    return model


def quantized(whole: Any) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        options = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        found = type(whole).from_pretrained(folder, quantization_config=options, dtype=torch.float32)
    for module in found.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return found


def greedy(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": END}
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


def decoder(model: Any, *, merged: bool) -> Decoder:
    whole = model.get_base_model()
    return Decoder(whole, lambda hidden: whole.lm_head(hidden).float(), merged=merged)


def ours(made: Decoder, prompts: list[list[int]], batch_size: int, temperature: float = 0.0) -> Any:
    return complete(
        made,
        prompts,
        max_new_tokens=NEW,
        temperature=temperature,
        top_p=1.0,
        end_ids=(END,),
        seed=4,
        batch_size=batch_size,
        order=in_order(prompts),
    )


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "stored"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_completions_are_those_of_generate(family: str, merged: bool) -> None:
    model = policy(family)
    assert not llama.unknown(model.get_base_model())
    expected = [greedy(model, prompt) for prompt in PROMPTS]
    for batch_size in (2, 100):
        found = ours(decoder(model, merged=merged), PROMPTS, batch_size)
        assert [ids for ids, _ in found] == expected


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "stored"])
def test_on_4_bit_weights(merged: bool) -> None:
    model = policy("llama", four_bit=True)
    found = ours(decoder(model, merged=merged), PROMPTS, 3)
    assert [ids for ids, _ in found] == [greedy(model, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "stored"])
@pytest.mark.parametrize("family", ["llama", "mistral, window shorter than the text", "qwen3"])
def test_log_probabilities_are_those_of_a_plain_forward(family: str, merged: bool) -> None:
    model = policy(family)
    for prompt, (ids, logps) in zip(PROMPTS, ours(decoder(model, merged=merged), PROMPTS, 3, 0.7), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        right = torch.log_softmax(logits / 0.7, -1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logps), right, rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
def test_a_prompt_is_computed_once_however_often_it_is_completed(batch_size: int) -> None:
    made = decoder(policy("llama"), merged=True)
    ours(made, PROMPTS, batch_size, 1.0)
    assert made.num_prefills == len({tuple(prompt) for prompt in PROMPTS})


def test_who_is_decoded_beside_a_prompt_changes_nothing() -> None:
    made = decoder(policy("llama"), merged=False)
    found = [[ids for ids, _ in ours(made, PROMPTS, size, 1.0)] for size in (1, 2, 3, 100)]
    assert found[0] == found[1] == found[2] == found[3]
    assert len({tuple(ids) for ids in found[0][3:6]}) > 1  # copies of a prompt have random numbers of their own


def test_the_adapters_that_are_off_are_not_used() -> None:
    model = policy("llama")
    with model.disable_adapter():
        found = ours(decoder(model, merged=False), PROMPTS, 100)
        assert [ids for ids, _ in found] == [greedy(model, prompt) for prompt in PROMPTS]
    assert [ids for ids, _ in found] != [greedy(model, prompt) for prompt in PROMPTS]


def test_what_the_decoder_does_not_know_is_said() -> None:
    whole = LlamaForCausalLM(LlamaConfig(**SHAPE))
    assert llama.unknown(whole) == ""
    whole.config.model_type = "gemma2"
    assert "gemma2" in llama.unknown(whole)
    dora = get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)), LoraConfig(target_modules=["q_proj"], use_dora=True))
    assert llama.unknown(dora.get_base_model()) == "the active adapter is not plain LoRA"
    dynamic = LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    assert "dynamic" in llama.unknown(LlamaForCausalLM(dynamic))


def step(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return torch.sin(tokens[:, None] * torch.arange(1, 50) + positions[:, None])


def test_a_captured_step_is_replayed_once_it_was_right_three_times() -> None:
    replays = []

    def capture(step: Any, *inputs: torch.Tensor) -> Any:
        return lambda *inputs: replays.append(1) or step(*inputs)

    calls: list[int] = []
    steps = Steps(lambda *inputs: calls.append(1) or step(*inputs), capture=capture)
    for number in range(5):
        inputs = torch.tensor([3, 4]), torch.tensor([number, number])
        torch.testing.assert_close(steps(*inputs), step(*inputs))
    assert (len(calls), len(replays), steps.off) == (3 + 5, 5, "")


@pytest.mark.parametrize("wrong", [lambda y: y * 1.2, lambda y: y * torch.nan, lambda y: y.flip(0)])
def test_a_captured_step_that_differs_is_never_used(wrong: Any) -> None:
    steps = Steps(step, capture=lambda step, *inputs: lambda *inputs: wrong(step(*inputs)))
    for number in range(5):
        inputs = torch.tensor([3, 4]), torch.tensor([number, number + 1])
        torch.testing.assert_close(steps(*inputs), step(*inputs))
    assert "differs by" in steps.off


def test_without_a_gpu_nothing_is_captured_and_the_reason_is_known() -> None:
    made = decoder(policy("llama"), merged=True)
    ours(made, PROMPTS, 2)
    assert made.no_graphs == "the step cannot be captured (no GPU)"
