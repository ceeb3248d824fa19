"""The LoRA alone, on its base's GGUF, is the merged model's GGUF within the rounding of f16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reading import expected, kl, llama_cpp, save
from test_gguf_models import CASES, rows
from transformers import AutoModelForCausalLM

from trueup.errors import ModelError
from trueup.export import gguf, gguf_logps, gguf_lora


def adapter(folder: Path, base: Path, strength: float = 0.05, **options: Any) -> tuple[Path, Path]:
    """(a random LoRA saved by peft, the model it was merged into in float32 saved by transformers)."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    wrapped = get_peft_model(model, LoraConfig(**settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data = strength * torch.randn_like(parameter)
    wrapped.save_pretrained(folder / "adapter")
    wrapped.merge_and_unload().save_pretrained(folder / "merged")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / "merged" / file).write_bytes((base / file).read_bytes())
    return folder / "adapter", folder / "merged"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {}),
        ("llama", {"use_rslora": True, "alpha_pattern": {"q_proj": 4}, "rank_pattern": {"v_proj": 8}}),
        ("mistral", {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("gemma", {"strength": 0.5}),
        ("phi3", {}),
    ],
)
def test_equals_the_merged_model(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    llama_cpp()
    model_type, tokenizer, more = CASES[name]
    base = save(tmp_path / "base", model_type, tokenizer(), **more)
    saved, merged = adapter(tmp_path, base, **options)
    lora = gguf_lora.write(saved, base, tmp_path / "gguf")
    on_base = gguf.write(base, tmp_path / "gguf", ["f16"], "base")["f16"]
    (bare,) = gguf_logps.logps(on_base, rows())
    (added,) = gguf_logps.logps(on_base, rows(), lora)
    (whole,) = gguf_logps.logps(gguf.write(merged, tmp_path / "gguf", ["f16"], "merged")["f16"], rows())
    assert kl(whole, bare) > 0.05  # the adapter does something
    assert kl(whole, added) < 2e-4
    assert kl(expected(merged, rows())[0], added) < 1e-3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"use_dora": True}, "use_dora true"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, 'modules_to_save ["lm_head"]'),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "no LoRA on a layer's linear modules"),
    ],
)
def test_what_is_no_plain_lora_is_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    model_type, tokenizer, more = CASES["llama"]
    base = save(tmp_path / "base", model_type, tokenizer(), **more)
    saved, _ = adapter(tmp_path, base, **options)
    with pytest.raises(ModelError) as caught:
        gguf_lora.write(saved, base, tmp_path / "gguf")
    assert says in caught.value.found
    assert not (tmp_path / "gguf").exists()
    assert json.loads((saved / "adapter_config.json").read_text())["peft_type"] == "LORA"
