"""What an aligned model must not have lost against SFT: the checks of `ship` that no judge takes part in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trueup.evaluation import abilities
from trueup.evaluation.intervals import change_by

Row = dict[str, Any]
Outcome = Literal["passed", "failed", "undecided", "not checked"]
AGAIN = "build evaluate again: trueup evaluate RUN.yaml --rebuild"
NOT_MEASURED = f"not measured; {AGAIN}"


@dataclass(frozen=True)
class Check:
    """One reason for the decision. `num_needed`: held-out prompts that would decide it, where that can be told."""

    name: str
    outcome: Outcome
    says: str
    num_needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may change. Both are shares: how much longer answers may be, 0.5 for half as long again; how many more of
    the answers may refuse, 0.05 for five in a hundred more."""

    length_growth: float = 0.5
    more_refusals: float = 0.0


def checks(metrics: Row, answers: Sequence[Row], limits: Limits) -> list[Check]:
    """Each against SFT, paired by prompt or by document, from the figures and the answers of an evaluation."""
    return [
        _ends(answers),
        _length(answers, limits.length_growth),
        _refusals(metrics, limits.more_refusals),
        _general_text(metrics),
        *_tasks(metrics),
    ]


def _ends(answers: Sequence[Row]) -> Check:
    """Answers that end by themselves: fewer than SFT's beyond what chance explains is a regression."""
    found = _change(answers, lambda row, label: float(row["finish"][label] == "eos"))
    if found is None:
        return Check("endings", "not checked", NOT_MEASURED)
    ended = sum(row["finish"]["aligned"] == "eos" for row in answers) / len(answers)
    said = f"{ended:.1%} end by themselves, {found['estimate']:+.1%} against SFT's"
    said += f" ({found['low']:+.1%} to {found['high']:+.1%})"
    return Check("endings", "failed" if found["high"] < 0 else "passed", said)


def _length(answers: Sequence[Row], most: float) -> Check:
    found = _change(answers, lambda row, label: float(row["num_tokens"][label]))
    if found is None:
        return Check("length", "not checked", NOT_MEASURED)
    before = sum(row["num_tokens"]["sft"] for row in answers) / len(answers)
    mean, low, high = (found[name] / before for name in ("estimate", "low", "high"))
    said = f"{mean:+.0%} in tokens, against SFT's answers ({low:+.0%} to {high:+.0%}), at most {most:+.0%} wanted"
    return Check("length", "failed" if low > most else "passed" if high <= most else "undecided", said)


def _refusals(metrics: Row, most: float) -> Check:
    """More refusals than SFT's beyond `most` and what chance explains are a regression."""
    found = (metrics.get("abilities") or {}).get("refusals")
    if found is None or found["change_from_sft"] is None:
        return Check("refusals", "not checked", NOT_MEASURED)
    said = abilities.of_refusals(found) + (f", at most {most:+.1%} wanted" if most else "")
    return Check("refusals", "failed" if found["change_from_sft"]["low"] > most else "passed", said)


def _general_text(metrics: Row) -> Check:
    """Worse at predicting a general text than SFT is, by more than one half of it differs from the other."""
    found = (metrics.get("abilities") or {}).get("general_text")
    if found is None:
        return Check("general text", "not checked", NOT_MEASURED)
    change, floor, said = found["change_from"]["sft"], found["noise_floor"], abilities.of_text(found)
    if change["low"] > floor:
        return Check("general text", "failed", said)
    if change["high"] <= floor:
        return Check("general text", "passed", said)
    return Check("general text", "undecided", f"{said}; a longer evaluate.general_text would tell")


def _tasks(metrics: Row) -> list[Check]:
    """The tasks of lm-eval, where some were asked for: worse than SFT beyond what chance explains is a regression."""
    found = (metrics.get("abilities") or {}).get("lm_eval") or {}
    return [
        Check(name, "failed" if one["gain_over_sft"]["high"] < 0 else "passed", abilities.of_task(one))
        for name, one in found.items()
        if one["gain_over_sft"] is not None
    ]


def _change(answers: Sequence[Row], figure: Callable[[Row, str], float]) -> dict[str, float] | None:
    """`change_by` prompt of a figure of the aligned answers against SFT's; None where rows lack the figure."""
    try:
        ids, after, before = zip(
            *((row["prompt_id"], figure(row, "aligned"), figure(row, "sft")) for row in answers), strict=True
        )
    except (KeyError, ValueError):  # an evaluation of an earlier version, or one without answers
        return None
    return change_by(ids, after, before)
