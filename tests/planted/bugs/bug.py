"""One bug to plant: what is replaced where, and the tests that must fail for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """`old`, found once in `file`, becomes `new`; `tests` are arguments of pytest."""

    name: str
    area: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
