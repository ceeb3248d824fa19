"""llama.cpp's logits of each architecture's GGUF are transformers' own of the model it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reading import agreement, expected, kl, llama_cpp, save
from tokenizers_of import gemma, gpt2, llama2, phi3, qwen2
from transformers import AutoConfig, LlamaConfig

from trueup.errors import ModelError
from trueup.export import gguf, gguf_logps

ROPE = {"rope_theta": 10_000.0}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "llama": ("llama", gpt2, {}),
    "llama, tied": ("llama", gpt2, {"tie_word_embeddings": True}),
    "llama, biases": ("llama", gpt2, {"attention_bias": True, "mlp_bias": True}),
    "llama, wider heads": ("llama", gpt2, {"head_dim": 32}),
    "llama, one head of keys": ("llama", gpt2, {"num_key_value_heads": 1}),
    "llama, theta": ("llama", gpt2, {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}),
    "llama, llama3": ("llama", gpt2, {"rope_parameters": ROPE | LLAMA_3}),
    "llama, linear": ("llama", gpt2, {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 4.0}}),
    "llama, yarn": ("llama", gpt2, {"rope_parameters": ROPE | YARN}),
    "mistral": ("mistral", llama2, {"head_dim": 32, "sliding_window": None}),
    "qwen2": ("qwen2", qwen2, {}),
    "qwen2, yarn": ("qwen2", qwen2, {"rope_parameters": ROPE | YARN}),
    "qwen3": ("qwen3", qwen2, {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma": ("gemma", gemma, {"head_dim": 32}),
    "phi3": ("phi3", phi3, {}),
    "phi3, partial rotation": (
        "phi3",
        gpt2,
        {"rope_parameters": ROPE | {"rope_type": "default", "partial_rotary_factor": 0.75}},
    ),
}


def rows(length: int = 100) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(300, 500, (length,), generator=generator).tolist()]


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, tmp_path: Path) -> None:
    """llama.cpp computes in float32 here, but for activations and keys in f16: 0.01 nats and 4 of 100 tokens."""
    llama_cpp()
    model_type, tokenizer, options = CASES[name]
    folder = save(tmp_path, model_type, tokenizer(), **options)
    made = gguf.write(folder, tmp_path / "gguf", ["f16", "q8_0", "q4_0"], name)
    right = expected(folder, rows())[0]
    divergence = {}
    for kind, path in made.items():
        (read,) = gguf_logps.logps(path, rows())
        assert read.shape == right.shape
        divergence[kind] = kl(right, read)
        if kind == "f16":
            assert agreement(right, read) >= 0.96
    assert divergence["f16"] < 1e-3
    assert divergence["f16"] <= divergence["q8_0"] < 0.01
    assert divergence["q8_0"] < divergence["q4_0"] < 1.0


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_transformers_reads_it_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_type, tokenizer, options = CASES[name]
    folder = save(tmp_path, model_type, tokenizer(), **options)
    made = gguf.write(folder, tmp_path / "gguf", ["f16"], name)
    monkeypatch.setattr(gguf_logps, "reader", lambda: "transformers")
    (read,) = gguf_logps.logps(made["f16"], rows())
    assert (read - expected(folder, rows())[0]).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_quantized_as_llama_cpp_quantizes(kind: str, tied: bool, tmp_path: Path) -> None:
    """Bit for bit in the layers; q8_0, and bf16, in all tensors."""
    from gguf import GGUFReader

    module = llama_cpp()
    folder = save(tmp_path, "llama", gpt2(), tie_word_embeddings=tied)
    made = gguf.write(folder, tmp_path / "gguf", ["f16", kind], "types")
    settings = module.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = getattr(module, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}"), 1
    theirs = tmp_path / "theirs.gguf"
    assert module.llama_model_quantize(str(made["f16"]).encode(), str(theirs).encode(), settings) == 0
    ours, right = ({t.name: t for t in GGUFReader(path).tensors} for path in (made[kind], theirs))
    assert ours.keys() == right.keys()
    for name, tensor in ours.items():
        if kind in ("bf16", "q8_0") or name.startswith("blk."):
            assert tensor.tensor_type == right[name].tensor_type, name
            assert (tensor.data == right[name].data).all(), name
    output = "token_embd.weight" if tied else "output.weight"
    assert ours[output].tensor_type.name == ("BF16" if kind == "bf16" else "Q8_0")


def test_a_torn_file_is_said(tmp_path: Path) -> None:
    llama_cpp()
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(ModelError, match=r"llama\.cpp does not load it"):
        list(gguf_logps.logps(tmp_path / "torn.gguf", rows()))


def test_shards_are_read_in_turn(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "one", "llama", gpt2())
    whole = gguf.write(folder, tmp_path / "a", ["q8_0"], "same")["q8_0"].read_bytes()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for index, names in enumerate((sorted(tensors)[:9], sorted(tensors)[9:])):
        save_file({name: tensors[name] for name in names}, folder / f"model-0000{index + 1}-of-00002.safetensors")
    assert gguf.write(folder, tmp_path / "b", ["q8_0"], "same")["q8_0"].read_bytes() == whole


def test_the_context_ends_with_the_sliding_window(tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = save(tmp_path, "mistral", llama2(), sliding_window=128)
    made = gguf.write(folder, tmp_path / "gguf", ["f16"], "window")
    assert GGUFReader(made["f16"]).get_field("llama.context_length").contents() == 128


def faults(config: Any, *types: str) -> str:
    with pytest.raises(ModelError) as caught:
        gguf.check(config, gpt2(), types or ["f16"])
    return caught.value.found


def test_all_faults_come_at_once() -> None:
    config = LlamaConfig(
        hidden_size=48, num_attention_heads=4, intermediate_size=80, hidden_act="gelu",
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    )  # fmt: skip
    found = faults(config, "q8_0", "q4_k_m")
    assert "activation gelu" in found
    assert "rope scaling dynamic" in found
    assert "hidden_size 48 and intermediate_size 80 and heads x head_dim 48 for type q8_0" in found
    assert "type q4_k_m" in found
    assert "llama-quantize" in found


@pytest.mark.parametrize(
    ("model_type", "options", "says"),
    [
        ("gemma2", {}, "architecture gemma2"),
        ("gpt_neox", {}, "architecture gpt_neox"),
        ("gemma", {"tie_word_embeddings": False}, "an output layer of its own"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("phi3", {"rope_parameters": ROPE | {"rope_type": "longrope"}}, "rope scaling longrope"),
        ("llama", {"rope_parameters": ROPE | {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary"),
        ("llama", {"rope_parameters": ROPE | YARN | {"attention_factor": 1.5}}, "attention_factor 1.5 of yarn"),
    ],
)
def test_refused_by_name(model_type: str, options: dict[str, Any], says: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = AutoConfig.for_model(model_type)
    assert isinstance(config, CONFIG_MAPPING[model_type])
    for key, value in options.items():
        setattr(config, key, value)
    assert says in faults(config)


def test_weights_that_f16_cannot_hold_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path, "llama", gpt2(), dtype="bfloat16")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 2.0**17
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"mlp.up_proj.weight holds 1.31e\+05, which float16 cannot hold"):
        gguf.write(folder, tmp_path / "gguf", ["f16"], "large")
