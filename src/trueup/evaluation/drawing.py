"""What the plots and tables of a report share: names of contestants, colours, axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "sft": "SFT (before)",
    "aligned": "aligned (after)",
    "round_before": "the round before",
    "base": "base, bare",
    "system_prompt": "base, system prompt",
    "few_shot": "base, few-shot",
}
BEFORE, AFTER = "#8a94a6", "#2a9d6f"


def axes(height: float) -> tuple[Figure, Any]:
    """A figure of this height, in inches, and its axes without a frame above and on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height))
    drawn = figure.subplots()
    drawn.spines[["top", "right"]].set_visible(False)
    return figure, drawn
