"""Aligned models against their own checkpoints: win rate over SFT against KL, and where over-optimization begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trueup import drawing
from trueup.evaluation import frontier
from trueup.evaluation.frontier import Point
from trueup.page import Page
from trueup.report.gathered import Aligned, Gathered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
OPTIMIZED = drawing.COLOURS[1]


def add(page: Page, gathered: Gathered, run_file: str) -> None:
    """A figure and what it shows of each aligned model whose checkpoints were compared; else nothing."""
    some = [one for one in gathered.aligned if one.evaluation and frontier.labels(one.evaluation.metrics)]
    if not some:
        return
    page.heading("Over checkpoints", 3)
    page.plots([_plot(one, one.evaluation.metrics) for one in some if one.evaluation])
    for one in some:
        figures: Row = one.evaluation.metrics if one.evaluation else {}
        advice = frontier.gentler(figures, one.built.stage, one.built.record.get("config", {}))
        typed = run_file + f" --set round={one.built.round}" * (one.built.round > 1)
        said = [*frontier.says(figures), *(line.replace("RUN.yaml", typed) for line in advice)]
        page.text(f"{one.built.title}: {' '.join(said)}")
    page.text("The best of several checkpoints is partly the luckiest.")


def _plot(one: Aligned, figures: Row) -> tuple[Figure, str]:
    found, turned = frontier.points(figures), frontier.knee(figures)
    judge, optimized = frontier.compared_by(figures), figures["judges"]["optimized"]["name"]
    said = f"{one.built.title}: comparisons won over SFT, along training from SFT to the aligned model, against KL."
    said += " The numbers are the steps."
    if judge is not None and any(point.judged for point in found):
        said += f" Filled: by {judge[1]['name']}, with 95% intervals."
    said += f" Hollow: by {optimized}."
    if turned is not None:
        said += f" The ring marks the knee, {turned.name}: from there on the aligned model is over-optimized."
    return figure(found, turned), said


def figure(found: Sequence[Point], turned: Point | None) -> Figure:
    """Win rates over SFT against KL from SFT, by the judge and by what was optimized; a ring around the knee."""
    drawn, axes = drawing.axes(3.0)
    axes.axhline(0.5, color=drawing.GREY, linestyle="--", linewidth=1)
    axes.plot([0], [0.5], color=drawing.GREY, marker="+", markersize=9, linestyle="", label="SFT")
    judged = [(one.kl, one.judged) for one in found if one.judged]
    optimized = [(one.kl, one.optimized["estimate"]) for one in found if one.optimized]
    for kl, won in judged:
        axes.plot([kl, kl], [won["low"], won["high"]], color=drawing.MAIN, linewidth=1.5)
    by_judge = [(0.0, 0.5), *((kl, won["estimate"]) for kl, won in judged)]
    if judged:
        axes.plot(*zip(*by_judge, strict=True), color=drawing.MAIN, linewidth=1.5, label="judge")
        axes.plot(*zip(*by_judge[1:], strict=True), color=drawing.MAIN, marker="o", markersize=6, linestyle="")
    axes.plot(
        *zip((0.0, 0.5), *optimized, strict=True), color=OPTIMIZED, linewidth=1.5, linestyle="--", label="optimized"
    )
    look = {"marker": "s", "markersize": 5, "markerfacecolor": "#ffffff", "linestyle": ""}
    axes.plot(*zip(*optimized, strict=True), color=OPTIMIZED, **look)
    if turned is not None and (at := turned.judged or turned.optimized) is not None:
        ring = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "linestyle": ""}
        axes.plot([turned.kl], [at["estimate"]], color=drawing.COLOURS[3], label="knee", **ring)
    axes.set(ylim=(-0.02, 1.02), xlabel="KL from SFT, nats per token", ylabel="comparisons won")
    furthest = max(one.kl for one in found) or 1.0
    axes.set_xlim(left=-0.03 * furthest, right=1.08 * furthest)
    axes.set_yticks(*drawing.PERCENT)
    _steps(axes, found)
    drawing.legend(axes)
    return drawn


def _steps(axes: Any, found: Sequence[Point]) -> None:
    """The steps in two rows above the axis, each below its points: neighbours may be close to one another."""
    for number, one in enumerate(sorted(found, key=lambda one: one.kl)):
        name = "end" if one.label == "aligned" else one.name.removeprefix("step ")
        at = {"textcoords": "offset points", "xytext": (0, 4 + 10 * (number % 2))}
        axes.annotate(name, (one.kl, 0), **at, ha="center", fontsize=drawing.TEXT_POINTS - 1)
    axes.annotate("step", (0, 0), xytext=(0, 4), textcoords="offset points", ha="left", fontsize=8)
