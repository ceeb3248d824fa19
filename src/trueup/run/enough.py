"""How much data a claim takes: the numbers of docs/choosing.md."""

from __future__ import annotations

DEMONSTRATIONS = 100
JUDGED_PROMPTS = 150


def few(count: int, enough: int, what: str) -> list[str]:
    """A warning when `count` is less than `enough`; else nothing."""
    if count >= enough:
        return []
    if count == 1:
        return [f"warning: 1 of the {what} is too few; docs/choosing.md asks for {enough} or more"]
    return [f"warning: {count:,} {what} are few; docs/choosing.md asks for {enough} or more"]
