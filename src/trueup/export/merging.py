"""Writing a policy as one model: the adapter added to the dequantized base, in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trueup.models import adapters, base


def write(model: Any, adapter: Path, out: Path, *, saved_in_4_bits: bool, end_ids: list[int] | None = None) -> None:
    """Save base plus the adapter saved in `adapter` into `out`, as bf16 safetensors.

    `model` is the base with that adapter loaded; it is taken apart. `saved_in_4_bits`: so are the base's own files.
    `end_ids` become the end tokens of the saved generation configuration; None keeps the base's.
    """
    bare = model.unload()
    if base.linear4bit_layers(bare):
        bare.dequantize()  # before the adapter is put back: peft's 4-bit layers would merge into 4 bits
    whole = adapters.load_adapter(bare, adapter, trainable=False).eval().merge_and_unload().to(torch.bfloat16)
    if end_ids is not None:
        whole.generation_config.eos_token_id = end_ids
    # transformers cannot reverse what it read those files by
    whole.save_pretrained(out, safe_serialization=True, save_original_format=not saved_in_4_bits)
