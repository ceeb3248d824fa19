"""Pushing what was exported to a hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.errors import StageError


def check(name: str, forms: Sequence[str]) -> None:
    """Before anything is built: the names, the token, and whether the hub takes both."""
    raise StageError("export.push", found="nothing is pushed yet", next_step="leave push out")


def parcels(out: Path, name: str, forms: Sequence[str]) -> list[Any]:
    """What would go where."""
    raise NotImplementedError


def lines(found: Sequence[Any]) -> list[str]:
    """What a dry run prints."""
    raise NotImplementedError


def send(found: Sequence[Any], *, private: bool = True) -> list[str]:
    """Push; returns an address each."""
    raise NotImplementedError
