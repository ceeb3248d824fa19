"""A Modelfile for Ollama."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(out: Path, gguf: Path, tokenizer: Any, end_ids: Sequence[int], system: str | None) -> Path:
    """Write the Modelfile into `out`."""
    raise NotImplementedError
