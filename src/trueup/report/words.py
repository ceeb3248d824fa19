"""Figures in words: shares with their intervals, counts, times."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def share(found: Row | None, otherwise: str = "not known") -> str:
    """A share with its interval."""
    if not found:
        return otherwise
    return f"{found['estimate']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what it is a number of."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def minutes(seconds: float) -> str:
    """A time of whatever length."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def spoken(name: str) -> str:
    """A key of a record as a reader sees it."""
    return name.replace("_", " ")
