"""How much data a claim takes: the numbers of docs/choosing.md."""

from __future__ import annotations

DEMONSTRATIONS = 100
JUDGED_PROMPTS = 150


def few(count: int, enough: int, what: str) -> list[str]:
    """A warning when `count` is less than `enough`; else nothing."""
    if count >= enough:
        return []
    return [f"warning: {count:,} {what} are few; docs/choosing.md asks for {enough} and more"]
