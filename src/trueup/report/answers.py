"""Answers side by side, chosen by a rule that is told: the clearest wins, the middle, and the clearest losses."""

from __future__ import annotations

from typing import Any

from trueup.evaluation.contestants import name_of
from trueup.evaluation.names import NAMES
from trueup.page import Page
from trueup.report import rows, words
from trueup.report.gathered import Built, Gathered, evenly
from trueup.run.goal import judge_of

Row = dict[str, Any]
EACH = 3  # answers of each kind


def add(page: Page, gathered: Gathered) -> None:
    """Some answers of the evaluation that the verdict is from."""
    headline = gathered.headline
    if headline is None or headline.evaluation is None:
        return
    everything = headline.evaluation.rows("answers.jsonl")
    chosen, rule = choose(headline.evaluation, everything)
    page.text(rule)
    others = [label for label in rows.answering(headline.evaluation) if label not in ("sft", "aligned")]
    metrics = headline.evaluation.metrics
    for note, row in chosen:
        shown = [(NAMES["sft"], row["sft"]), (f"{headline.built.title} (after)", row["aligned"])]
        page.answers(row["messages"][-1]["content"], note, shown)
        rest = [(name_of(label, metrics), row[label]) for label in others if isinstance(row.get(label), str)]
        if rest:
            with page.folded(f"what {words.counted(len(rest), 'other contestant')} answered to this"):
                page.answers(row["messages"][-1]["content"], "the other contestants", rest)


def choose(evaluation: Built, everything: list[Row]) -> tuple[list[tuple[str, Row]], str]:
    """((note, row of answers.jsonl) of each that is shown, the rule by which they were chosen)."""
    judge = judge_of(evaluation.metrics)
    told = [(row, found) for row in everything if (found := _for_aligned(row, judge)) is not None]
    if len(told) < len(everything) / 2 or not told:
        some = evenly(everything, 3 * EACH)
        return [("evenly spaced", row) for row in some], f"{len(some)} of {len(everything):,}, evenly spaced."
    ranked = sorted(told, key=lambda one: -one[1])
    middle = max(0, len(ranked) // 2 - EACH // 2)
    places = {
        "clearest for the aligned model": range(EACH),
        "the middle": range(middle, middle + EACH),
        "clearest against the aligned model": range(len(ranked) - EACH, len(ranked)),
    }
    shown: dict[int, str] = {}
    for note, some_places in places.items():
        for place in some_places:
            if 0 <= place < len(ranked):
                shown.setdefault(place, note)
    unit = "preference of the judge" if judge else "difference in reward"
    chosen = [(f"{shown[place]}: {_said(ranked[place][1], judge)}", ranked[place][0]) for place in sorted(shown)]
    left = f" {len(everything) - len(told):,} have no answer of the judge." if len(told) < len(everything) else ""
    return chosen, (
        f"{len(chosen)} of {words.counted(len(everything), 'pair')} of answers, by the {unit}: the {EACH} that speak "
        f"most for the aligned model, {EACH} in the middle, and the {EACH} that speak most against it.{left}"
    )


def _for_aligned(row: Row, judge: Row | None) -> float | None:
    """How far a row speaks for the aligned model: the judge's preference, else the difference of the rewards."""
    if judge is not None:
        found = row.get("preferred", {}).get(judge["kind"])
        return float(found) if isinstance(found, int | float) else None
    reward = row.get("reward") or {}
    return float(reward["aligned"] - reward["sft"]) if {"aligned", "sft"} <= reward.keys() else None


def _said(found: float, judge: Row | None) -> str:
    if judge is None:
        return f"{found:+.2f}"
    if found == 0.5:
        return "a tie"
    return f"{found:.0%} for the aligned answer"
