"""What the plots of a report share: colours, and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEFORE, AFTER = "#8a94a6", "#2a9d6f"


def axes(height: float) -> tuple[Figure, Any]:
    """A figure of this height, in inches, and its axes without a frame above and on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height))
    drawn = figure.subplots()
    drawn.spines[["top", "right"]].set_visible(False)
    return figure, drawn
