"""A LoRA alone as GGUF, to load beside the GGUF of its base."""

from __future__ import annotations

from pathlib import Path


def write(adapter: Path, merged_or_base_config: Path, out: Path) -> Path:
    """Write the LoRA saved in `adapter` below `out`."""
    raise NotImplementedError
