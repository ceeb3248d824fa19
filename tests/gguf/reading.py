"""Tiny models saved for transformers, and what llama.cpp reads of their GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

REASON = "llama-cpp-python is not installed; `make test` builds it once, or: pip install 'trueup[gguf]'"


def llama_cpp() -> Any:
    """The module; the test is skipped where it is not installed."""
    return pytest.importorskip("llama_cpp", reason=REASON)


SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def save(folder: Path, model_type: str, tokenizer: Any, *, dtype: str = "float16", **options: Any) -> Path:
    """A random model, with an embedding of some rows more than the tokenizer has ids; logits far from uniform."""
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": len(tokenizer) + 5} | options
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(model_type, **shape, **ids, eos_token_id=tokenizer.eos_token_id)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:  # norms and biases: away from their 0 and 1
            parameter.data += 0.2 * torch.randn_like(parameter)
        elif "embed" not in name:
            parameter.data = 0.8 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    output = model.get_output_embeddings().weight
    output.data = torch.randn_like(output) * 0.3
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id])
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def expected(folder: Path, rows: list[list[int]]) -> list[torch.Tensor]:
    """transformers' log-probabilities in float32, row by row."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return [torch.log_softmax(model(torch.tensor([row])).logits[0], -1) for row in rows]


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """Mean KL(p || q) over tokens, in nats; (tokens, vocabulary) log-probabilities."""
    return (p.exp() * (p - q)).sum(-1).mean().item()


def agreement(p: torch.Tensor, q: torch.Tensor) -> float:
    """The fraction of tokens whose likeliest successor is the same."""
    return (p.argmax(-1) == q.argmax(-1)).float().mean().item()
