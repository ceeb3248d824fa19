"""The part of a report that says who judged, and how far that is to be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueup.evaluation import drawing
from trueup.evaluation.drawing import AFTER, BEFORE, NAMES
from trueup.evaluation.intervals import wilson
from trueup.page import Page
from trueup.run.goal import judge_of, trusted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def who(figures: dict[str, Any]) -> str:
    """Who judged, and how far that is to be trusted."""
    judge, functions = judge_of(figures), figures.get("reward_functions")
    if judge is not None and judge["kind"] != "optimized":
        return trusted(judge)
    if functions:
        named = ", ".join(f"{name} (weight {weight:g})" for name, weight in functions.items())
        return (
            f"The judge is the functions that were optimized: {named}. The win rate says how well the aligned model "
            "does what they reward, and nothing of what people prefer."
        )
    same = "The judge is the run's reward model. It learned from the same judgements as the aligned model."
    return same if judge is None else f"{same} {trusted(judge)}{_instead(judge)}"


def _instead(judge: dict[str, Any]) -> str:
    instead = judge.get("instead_of")
    return f" There is no judge of its own, for {instead['why']}." if instead else ""


def judges(page: Page, judge: dict[str, Any], figures: dict[str, Any]) -> None:
    """Everybody who judged, side by side, and whether the one that the verdict is from is right when it is sure."""
    page.heading("Who judged")
    rows = []
    for kind, one in figures["judges"].items():
        won, trust = one["win_rates_over"].get("sft"), one["trust"]
        share = f"{won['estimate']:.1%} ({won['low']:.1%} to {won['high']:.1%})" if won else "no answer"
        right = "not measured"
        if trust and trust["num_pairs"]:
            right = f"{trust['estimate']:.1%} ({trust['low']:.1%} to {trust['high']:.1%})"
            right += f" of {trust['num_pairs']} {trust['on']}"
        said = "the verdict" if kind == judge["kind"] else "too kind, so no verdict" if kind == "optimized" else ""
        rows.append([one["name"], said, share, right, one["num_without_answer"].get("sft", 0)])
    page.table(["judge", "", "win rate over SFT", "right, by people's judgements", "no answer"], rows)
    if helped := figures.get("with_people"):
        share = f"{helped['estimate']:.1%} ({helped['low']:.1%} to {helped['high']:.1%})"
        page.text(
            f"By people's {helped['num_labelled']} labels, with the help of {helped['judge']} on the other prompts "
            f"(prediction-powered inference; as if their number had been fixed before): {share}."
        )
    for label, notes in figures["judges"][judge["kind"]]["notes"].items():
        page.text(f"Notes on {NAMES.get(label, label)}: {_noted(notes)}.")
    if bins := (judge["trust"] or {}).get("calibration"):
        page.plot(
            _calibration_figure(bins), "How often the judge is right, by how sure it is; ideal at the dashed line."
        )


def _noted(notes: dict[str, Any]) -> str:
    """Counts of a judge in words: `requests: answered 12, refused 0; position: ...`."""
    return "; ".join(
        f"{name.replace('_', ' ')}: {_noted(value).replace(':', '').replace(';', ',')}"
        if isinstance(value, dict)
        else f"{name.replace('_', ' ')}: {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in notes.items()
    )


def _calibration_figure(bins: list[dict[str, float]]) -> Figure:
    figure, axes = drawing.axes(2.6)
    axes.plot([0.5, 1], [0.5, 1], color=BEFORE, linestyle="--")
    for one in bins:
        axes.plot([one["sure"]] * 2, wilson(one["right"], one["num"]), color=AFTER, linewidth=2)
        axes.plot([one["sure"]], [one["right"]], color=AFTER, marker="o", markersize=7)
    axes.set(xlim=(0.48, 1.02), ylim=(0, 1.02), xlabel="how sure the judge is", ylabel="how often it is right")
    return figure
