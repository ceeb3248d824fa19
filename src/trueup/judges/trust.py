"""How far a judge can be trusted: what it says of pairs that people judged, and what that does to its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

from trueup.evaluation import intervals
from trueup.judges.protocol import Answer, Judge, Question, outcome
from trueup.run.goal import FEWEST

Row = dict[str, Any]
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # how sure a judge is of the answer it prefers


def questions(pairs: Sequence[Row]) -> list[Question]:
    """Of each pair of `collect` (pairs.jsonl), its chosen answer first: the answer that people prefer is 1."""
    return [
        Question(row["prompt_id"], row["prompt"], _answer(row, "chosen"), _answer(row, "rejected")) for row in pairs
    ]


def measure(judge: Judge, pairs: Sequence[Row], on: str) -> dict[str, Any] | None:
    """How often `judge` prefers what people preferred on `pairs`, which it must not have learned from; None of none.

    The accuracy is a win rate over the people's second choice, with its interval by prompt; ties of the judge count
    half. `on` says which pairs these are. `calibration` has, of each bin of how sure the judge is of the answer it
    prefers, how sure it is on average, how often it is right, and of how many pairs.
    """
    asked = questions(pairs)
    if not asked:
        return None
    judged = judge.judge(asked)
    told = [(q.prompt_id, answer) for q, answer in zip(asked, judged.answers, strict=True) if answer is not None]
    found: dict[str, Any] = {
        "on": on,
        "num_pairs": len(told),
        "num_without_answer": len(asked) - len(told),
        "notes": judged.notes,
    }
    if not told:
        return found | {"estimate": 0.5, "low": 0.0, "high": 1.0, "num_prompts": 0, "calibration": []}
    right = intervals.win_rate([outcome(answer) for _, answer in told], [prompt for prompt, _ in told])
    return found | right | {"calibration": calibration([answer for _, answer in told])}


def calibration(answers: Sequence[float]) -> list[dict[str, float]]:
    """Of a judge's answers to questions whose first answer people preferred: {sure, right, num} of each bin.

    A judge that is calibrated is right as often as it is sure. Answers of 0.5 prefer nothing and are left out.
    """
    found = []
    for low, high in pairwise(BINS):
        some = [a for a in answers if a != 0.5 and low <= max(a, 1 - a) and (max(a, 1 - a) < high or high == 1.0)]
        if some:
            sure = sum(max(a, 1 - a) for a in some) / len(some)
            found.append({"sure": sure, "right": sum(a > 0.5 for a in some) / len(some), "num": len(some)})
    return found


def can_tell(trust: dict[str, Any] | None) -> bool:
    """Whether a judge's accuracy is shown to be above one half, on prompts enough to say so."""
    return trust is not None and trust["num_prompts"] >= FEWEST and trust["low"] > 0.5


def prediction_powered(
    people: Sequence[tuple[str, float]], judged: Sequence[tuple[str, float]]
) -> dict[str, float] | None:
    """A win rate by people's labels where there are some, and by a judge's everywhere, right whatever the judge is.

    `people` are (prompt, outcome) of those prompts that people were asked about, `judged` those of the judge for all
    prompts; both in [0, 1], a prompt's outcomes are averaged. The estimate is mean(people - w judge) over the labelled
    prompts + w mean(judge) over the others, with the weight w that makes its variance smallest (Angelopoulos, Duchi and
    Zrnic 2023, "PPI++: Efficient prediction-powered inference", of a mean), and an interval by Student's t. None with
    fewer than two prompts of either kind. The number of labels must not have been chosen by looking at them.
    """
    from scipy.stats import t

    human, machine = _means(people), _means(judged)
    both = [prompt for prompt in human if prompt in machine]
    others = [machine[prompt] for prompt in machine if prompt not in human]
    if min(len(both), len(others)) < 2:
        return None
    y, f = [human[prompt] for prompt in both], [machine[prompt] for prompt in both]
    n, more = len(both), len(others)
    spread = _variance(f + others)
    weight = 0.0 if spread == 0 else _covariance(y, f) / ((1 + n / more) * spread)
    weight = min(max(weight, 0.0), 1.0)
    rest = [a - weight * b for a, b in zip(y, f, strict=True)]
    estimate = sum(rest) / n + weight * sum(others) / more
    error = sqrt(_variance(rest) / n + weight**2 * _variance(others) / more)
    half = float(t.ppf((1 + intervals.LEVEL) / 2, n - 1)) * error
    low, high = max(estimate - half, 0.0), min(estimate + half, 1.0)
    return {
        "estimate": estimate,
        "low": low,
        "high": high,
        "num_labelled": n,
        "num_prompts": n + more,
        "weight": weight,
    }


def _answer(row: Row, side: str) -> Answer:
    ids = row.get(f"{side}_ids")
    return Answer(row[side], None if ids is None else tuple(ids), row.get(f"{side}_finish") != "length")


def _means(labels: Sequence[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for prompt, value in labels:
        found.setdefault(prompt, []).append(value)
    return {prompt: sum(values) / len(values) for prompt, values in found.items()}


def _variance(values: Sequence[float]) -> float:
    return _covariance(values, values)


def _covariance(one: Sequence[float], other: Sequence[float]) -> float:
    a, b = sum(one) / len(one), sum(other) / len(other)
    return sum((x - a) * (y - b) for x, y in zip(one, other, strict=True)) / max(len(one) - 1, 1)
