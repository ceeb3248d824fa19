"""The vLLM engine: what it refuses, and on a stand-in for vLLM what it hands over and takes back."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from trueup.errors import ModelError
from trueup.sampling import vllm_engine
from trueup.sampling.sample import engine
from trueup.sampling.types import Generated, Sampling

SAMPLING = Sampling(max_new_tokens=5, temperature=0.7, top_p=1.0, batch_size=2, seed=0, engine="vllm")
TOKENIZER: Any = SimpleNamespace(eos_token_id=9, added_tokens_decoder={9: "</s>"}, all_special_ids=[9])


@pytest.fixture
def model(tmp_path: Path) -> Any:
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    causal = LlamaForCausalLM(LlamaConfig(vocab_size=12, max_position_embeddings=64, **shape))
    causal.save_pretrained(tmp_path / "base")
    causal = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    return get_peft_model(causal, LoraConfig(r=12, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def test_without_vllm_or_a_gpu_it_says_so(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="engine: vllm: vllm is not installed; there is no GPU"):
        engine(model, TOKENIZER, SAMPLING)


def test_the_bare_base_and_dora_are_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    vllm_engine.refuse_unfit(model)
    with model.disable_adapter(), pytest.raises(ModelError, match="vllm: no plain LoRA adapter is active"):
        vllm_engine.refuse_unfit(model)
    model.add_adapter("dora", LoraConfig(target_modules=["q_proj"], use_dora=True))
    with pytest.raises(ModelError, match="vllm: no plain LoRA adapter is active"):
        vllm_engine.refuse_unfit(model)


@dataclass
class FakeVllm:
    """vLLM's classes as far as we call them, with what they were given."""

    made: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def LLM(self, **options: Any) -> Any:
        self.made.append(options)
        return self

    def generate(self, prompts: list[Any], params: list[Any], lora_request: Any, use_tqdm: bool) -> list[Any]:
        name, number, path = lora_request
        weights = load_file(Path(path) / "adapter_model.safetensors")
        self.calls.append({"prompts": prompts, "params": params, "name": name, "id": number, "weights": weights})
        steps = [{4: SimpleNamespace(logprob=-0.5)}, {9: SimpleNamespace(logprob=-1.5)}]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=(4, 9), logprobs=steps)]) for _ in prompts]


def test_each_rollout_hands_over_the_adapter_as_it_is_now(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeVllm()
    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    vllm.LLM, vllm.SamplingParams = fake.LLM, dict  # type: ignore[attr-defined]
    request.LoRARequest = lambda name, number, path: (name, number, path)  # type: ignore[attr-defined]
    for module in (vllm, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(vllm_engine, "refuse_unfit", lambda model: None)

    found = engine(model, TOKENIZER, SAMPLING)([[1, 2], [1, 2]], 3)
    assert found == [Generated([4, 9], [-0.5, -1.5])] * 2
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(7.0)
    engine(model, TOKENIZER, SAMPLING)([[1, 2], [1, 2]], 3)
    model.add_adapter("ref", LoraConfig(r=12, target_modules=["q_proj"]))
    model.set_adapter("ref")
    engine(model, TOKENIZER, SAMPLING)([[1, 2], [1, 2]], 3)

    assert len(fake.made) == 1  # loaded once
    assert fake.made[0]["model"] == str(tmp_path / "base")
    assert (fake.made[0]["max_lora_rank"], fake.made[0]["max_model_len"]) == (16, 64)  # the least that vLLM takes
    assert (fake.made[0]["quantization"], fake.made[0]["logprobs_mode"]) == ("bitsandbytes", "processed_logprobs")
    assert len({(call["id"], call["name"]) for call in fake.calls}) == 3  # else vLLM would keep the first
    ups = [next(w for key, w in call["weights"].items() if "lora_B" in key) for call in fake.calls]
    assert [up.abs().max().item() for up in ups] == [0.0, 7.0, 0.0]
    first = fake.calls[0]
    assert first["prompts"] == [{"prompt_token_ids": [1, 2]}] * 2
    seeds = [params.pop("seed") for params in first["params"]]
    assert len(set(seeds)) == 2  # else completions of one prompt would all be the same
    assert seeds == [params["seed"] for params in fake.calls[1]["params"]]
    expected = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 5, "stop_token_ids": [9], "logprobs": 0}
    assert first["params"] == [expected] * 2
