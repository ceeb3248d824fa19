"""curves.html: what metrics.jsonl says, as plots per step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.page import Page

CURVES = {  # key of a row -> its words
    "reward": "Reward: mean of the rollout, the penalty for a missing end included",
    "kl": "KL to the reference, nats per token",
    "entropy": "Entropy, nats per token",
    "clip_fraction": "Share of the tokens whose ratio was clipped",
    "explained_variance": "Variance of the returns that the value explains: 1 is all, 0 no better than a constant",
    "length_tokens": "Length of the completions, tokens",
    "eos_rate": "Share of the completions that end by themselves",
    "tokens_per_s": "Completion tokens per second, rollout and update together",
}


def write(rows: list[dict[str, Any]], title: str, path: Path) -> Path:
    """A page with a plot for each of `CURVES` that the rows have, and the sentences about what was off."""
    page = Page(title)
    said = [(row["step"], sentence) for row in rows for sentence in row["warnings"]]
    page.text(f"{len(rows)} steps; {len(said)} warnings.")
    if said:
        page.table(("step", "what is off"), said)
    for key, words in CURVES.items():
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            page.plot(_figure(points), words)
    return page.write(path)


def _figure(points: list[tuple[int, float]]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 2.4))
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), marker=".", linewidth=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    return figure
