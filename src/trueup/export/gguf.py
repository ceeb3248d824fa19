"""GGUF files of the merged model, for llama.cpp and what is built on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trueup.errors import ModelError


def check(config: Any, tokenizer: Any, types: Sequence[str], end_ids: Sequence[int] = ()) -> None:
    """Raises ModelError for what `write` cannot write."""
    raise ModelError("export.to: gguf", found="GGUF files are not written yet", next_step="leave gguf out of export.to")


def write(merged: Path, out: Path, types: Sequence[str], name: str) -> dict[str, Path]:
    """Write a GGUF file of each type."""
    raise NotImplementedError


def reader() -> str:
    """The program that `logps` reads with."""
    raise NotImplementedError


def logps(path: Path, ids: Sequence[Sequence[int]]) -> Iterable[Tensor]:
    """(tokens, vocabulary) log-probabilities of the next token, row by row."""
    raise NotImplementedError
