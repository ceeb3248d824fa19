"""What can be refused of an export before anything is loaded, trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trueup.chat.ending import end_ids
from trueup.errors import ConfigError
from trueup.export import gguf, ollama, room
from trueup.models import base, families
from trueup.run.run_file import RunFile

LORA_BYTES = 4  # of an adapter's weight


@dataclass(frozen=True)
class Known:
    """Of the base, without its weights."""

    config: Any  # of transformers
    tokenizer: Any  # the one that was, or will be, trained with
    end_ids: list[int]  # every token that ends an answer, the trained one first
    num_parameters: int
    four_bit: bool  # the policy's base is held in 4 bits
    saved_in_4_bits: bool  # so are its files


def check(run: RunFile, out: Path, to: Sequence[str], gguf_types: Sequence[str], adapter_for: str) -> Known:
    """Look at the base, its tokenizer, and the disk of `out`, for an export into the forms `to`.

    Raises ModelError for a base that is gone or that a form cannot hold, ConfigError for options that exclude each
    other, StageError for a disk that is too small.
    """
    four_bit = run.adapter.kind != "lora"
    config = base.checked_config(run.model.base, four_bit=four_bit)
    saved_in_4_bits = bool(families.quantization(config))
    if adapter_for == "16bit" and (not four_bit or saved_in_4_bits):
        raise ConfigError(
            "export.adapter_for: 16bit",
            found="a base whose files are in 4 bits" if saved_in_4_bits else "an adapter that was trained on 16 bits",
            expected="an adapter trained in 4 bits on a base with 16-bit files",
            next_step="leave adapter_for out",
        )
    tokenizer = base.load_tokenizer(run.model)
    ends = list(end_ids(tokenizer, SimpleNamespace(generation_config=_generation(run.model.base, config))))
    wanted = ["bf16"] if "merged" in to else []
    if "gguf" in to or "ollama" in to:
        gguf.check(config, tokenizer, gguf_types, ends)
        ollama.check(run.data.system if "ollama" in to else None)
        wanted = ["bf16", *gguf_types]  # made from the merged weights, which are removed if nobody wants them
    bare = base.skeleton(run.model.base, four_bit=four_bit)
    num_parameters = sum(parameter.numel() for parameter in bare.parameters())
    adapted = sum(sum(p.shape) for p in bare.parameters() if p.dim() == 2) * run.adapter.r
    room.refuse_full_disk(out, num_parameters, wanted, LORA_BYTES * adapted)
    return Known(config, tokenizer, ends, num_parameters, four_bit, saved_in_4_bits)


def _generation(model_base: str, config: Any) -> Any:
    """The generation settings that the base will have once it is loaded."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(base.locate(model_base))
    except OSError:  # no such file
        return GenerationConfig.from_model_config(config)
