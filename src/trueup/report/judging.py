"""Everybody who judged, side by side, and how often each is right when it is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueup import drawing
from trueup.evaluation.contestants import name_of
from trueup.evaluation.intervals import wilson
from trueup.page import Page
from trueup.report import words
from trueup.report.gathered import Gathered
from trueup.run.goal import judge_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


def add(page: Page, gathered: Gathered) -> None:
    """The judges of the evaluation that the verdict is from."""
    headline = gathered.headline
    if headline is None or headline.evaluation is None:
        return
    figures = headline.evaluation.metrics
    judge = judge_of(figures)
    if judge is None:
        page.text("This evaluation is of an earlier version, which had one judge: what was optimized.")
        return
    rows = []
    for kind, one in figures["judges"].items():
        said = "the verdict" if kind == judge["kind"] else "too kind, so no verdict" if kind == "optimized" else ""
        won = words.share(one["win_rates_over"].get("sft"), "no answer")
        rows.append([one["name"], said, won, _right(one["trust"]), one["num_without_answer"].get("sft", 0)])
    page.table(["judge", "what it is for", "win rate over SFT", "right, by people's judgements", "no answer"], rows)
    if helped := figures.get("with_people"):
        page.text(
            f"By people's {helped['num_labelled']} labels, with the help of {helped['judge']} on the other prompts "
            f"(prediction-powered inference; as if their number had been fixed before): {words.share(helped)}."
        )
    for label, notes in figures["judges"][judge["kind"]]["notes"].items():
        page.text(f"Notes on {name_of(label, figures)}: {_noted(notes)}.")
    drawn = [
        (_calibration(bins), f"How often {one['name']} is right, by how sure it is; ideal at the dashed line.")
        for one in figures["judges"].values()
        if (bins := (one["trust"] or {}).get("calibration"))
    ]
    if drawn:
        page.plots(drawn)
    elif judge["kind"] != "people":
        page.text("How often the judge is right when it is sure is not known: nothing was there to measure it on.")


def _right(trust: Row | None) -> str:
    if not trust or not trust["num_pairs"]:
        return "not measured"
    return f"{words.share(trust)} of {trust['num_pairs']:,} {trust['on']}"


def _noted(notes: Row) -> str:
    """Counts of a judge in words: `requests: answered 12, refused 0; position: ...`."""
    return "; ".join(
        f"{words.spoken(name)}: {_noted(value).replace(':', '').replace(';', ',')}"
        if isinstance(value, dict)
        else f"{words.spoken(name)}: {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in notes.items()
    )


def _calibration(bins: list[dict[str, float]]) -> Figure:
    figure, axes = drawing.axes(2.6)
    axes.plot([0.5, 1], [0.5, 1], color=drawing.GREY, linestyle="--")
    for one in bins:
        axes.plot([one["sure"]] * 2, wilson(one["right"], one["num"]), color=drawing.MAIN, linewidth=2)
        axes.plot([one["sure"]], [one["right"]], color=drawing.MAIN, marker="o", markersize=6)
    axes.set(xlim=(0.48, 1.02), ylim=(0, 1.04), xlabel="how sure the judge is", ylabel="how often it is right")
    axes.set_yticks(*drawing.PERCENT)
    return figure
