"""Rounds and variants beside one another, and win rates and rewards against what they cost in KL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trueup import drawing
from trueup.page import Page
from trueup.report import checkpoints, words
from trueup.report.gathered import Aligned, Built, Gathered
from trueup.run.files import read_appended
from trueup.run.goal import judge_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add(page: Page, gathered: Gathered, run_file: str) -> None:
    """Every aligned model of every round, with what it was built with; and the frontier of reward against KL."""
    if not gathered.aligned:
        page.text("No model was aligned yet.")
        return
    page.table(
        ["aligned model", "built with", "comparisons won, over SFT", "judge", "KL from SFT", "place"],
        [_variant(one) for one in gathered.aligned],
    )
    if len({_kind(one) for one in gathered.aligned if one.evaluation}) > 1:
        page.text("These models were not all judged by the same kind of judge: compare their win rates with care.")
    if len(gathered.aligned) == 1:
        page.text(
            f"Another try on the same labels comes beside it, for instance: trueup kto {run_file} --as kto, then "
            f"trueup evaluate {run_file} --as kto."
        )
    else:
        page.text("Among many tries the one with the highest win rate is partly the luckiest.")
    drawn = []
    judged = [one for one in gathered.aligned if one.evaluation and "kl_nats_per_token" in one.evaluation.metrics]
    if len(judged) > 1:
        drawn.append(
            (
                _frontier(judged),
                "Comparisons won over SFT against KL from SFT, with 95% intervals; hollow: by what was optimized. "
                "Where the hollow points rise and the others do not, the reward is over-optimized.",
            )
        )
    if steps := _steps(gathered.stages):
        drawn.append(
            (_paths(steps), "Reward against KL from the reference, step by step, from the circle to the last step.")
        )
    if drawn:
        page.heading("Reward against KL", 3).plots(drawn)
    checkpoints.add(page, gathered, run_file)


def _variant(one: Aligned) -> list[object]:
    metrics = one.evaluation.metrics if one.evaluation else {}
    judge = judge_of(metrics)
    skipped = ("variant", "round", "name", "seed", "method", "labelstudio.port")
    settings = [text for text in one.built.record.get("overrides", ()) if text.partition("=")[0] not in skipped]
    kl = metrics.get("kl_nats_per_token")
    return [
        one.built.title,
        " ".join(settings) or "the run file",
        words.share(one.won, "not evaluated"),
        judge["name"] + ("" if judge["can_tell"] is not False else ", which cannot tell") if judge else "",
        None if kl is None else f"{kl:.3f}",
        "winner of its round" if one.wins else "",
    ]


def _kind(one: Aligned) -> str:
    judge = judge_of(one.evaluation.metrics) if one.evaluation else None
    return "optimized" if judge is None else str(judge["kind"])


def _frontier(judged: Sequence[Aligned]) -> Figure:
    figure, axes = drawing.axes(3.0)
    axes.plot([0], [0.5], color=drawing.GREY, marker="+", markersize=9, linestyle="", label="SFT")
    axes.axhline(0.5, color=drawing.GREY, linestyle="--", linewidth=1)
    for number, one in enumerate(judged):
        metrics, won = (one.evaluation.metrics if one.evaluation else {}), one.won or {}
        kl, marker = metrics["kl_nats_per_token"], drawing.MARKERS[number % len(drawing.MARKERS)]
        look = {"color": drawing.COLOURS[number % len(drawing.COLOURS)], "marker": marker, "markersize": 7}
        axes.plot([kl, kl], [won["low"], won["high"]], color=look["color"], linewidth=1.5)
        label = drawing.shortened(f"{one.built.name}, {one.built.round}", 22)
        axes.plot([kl], [won["estimate"]], **look, linestyle="", label=label)
        optimized = ((metrics.get("judges") or {}).get("optimized") or {}).get("win_rates_over", {}).get("sft")
        if optimized and _kind(one) != "optimized":
            axes.plot([kl], [optimized["estimate"]], **look, linestyle="", markerfacecolor="#ffffff")
    axes.set(ylim=(-0.02, 1.02), xlabel="KL from SFT, nats per token", ylabel="comparisons won")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_yticks(*drawing.PERCENT)
    drawing.legend(axes)
    return figure


def _steps(stages: Sequence[Built]) -> dict[str, drawing.Points]:
    """stage -> (KL, reward) of each step of those that learned as they sampled."""
    found: dict[str, drawing.Points] = {}
    for one in stages:
        logged = read_appended(one.path / "metrics.jsonl")[0]
        points = [
            (row["kl"], row["reward"])
            for row in logged
            if isinstance(row.get("kl"), int | float) and isinstance(row.get("reward"), int | float)
        ]
        if points:
            found[one.title] = points
    return found


def _paths(steps: dict[str, drawing.Points]) -> Figure:
    figure, axes = drawing.axes(2.8)
    for number, (title, points) in enumerate(steps.items()):
        colour = drawing.COLOURS[number % len(drawing.COLOURS)]
        axes.plot(*zip(*points, strict=True), color=colour, marker=".", linewidth=1, label=drawing.shortened(title, 30))
        axes.plot(*points[0], color=colour, marker="o", markersize=8, markerfacecolor="#ffffff")
    axes.set(xlabel="KL from the reference, nats per token", ylabel="reward")
    drawing.legend(axes)
    return figure
