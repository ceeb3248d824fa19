"""Whether to ship what an evaluation judged: each check with its figures, and the decision that follows from all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trueup.evaluation.contestants import BEST, NAMES
from trueup.evaluation.intervals import LEVEL
from trueup.run.goal import ROUND_BEFORE, over_round_before, won_by
from trueup.sample_size import to_show

Row = dict[str, Any]
Outcome = Literal["passed", "failed", "undecided", "not checked"]
Decision = Literal["SHIP", "DON'T SHIP", "ASK MORE"]

MAY_DECIDE = ("disjoint", "people", "endpoint", "function")  # judges that are not what was optimized


@dataclass(frozen=True)
class Check:
    """One reason for the decision. `num_needed`: held-out prompts that would decide it, where that can be told."""

    name: str
    outcome: Outcome
    says: str
    num_needed: int | None = None


def checks(
    metrics: Row, answers: Sequence[Row], goal: dict[str, float | None], max_length_growth: float
) -> list[Check]:
    """Every check of an evaluation, from its figures and its answers, against the run file's goal.

    `max_length_growth` is the share by which answers may grow, 0.5 for half as long again.
    """
    return [
        _judge(metrics),
        _win_rate(metrics, goal["win_rate"]),
        _kl(metrics, goal["kl"]),
        *_round_before(metrics),
        *_baselines(metrics),
        *_best_of(metrics),
        _ends(answers),
        _length(answers, max_length_growth),
    ]


def decide(found: Sequence[Check]) -> Decision:
    """DON'T SHIP where a check failed, else ASK MORE where one is undecided, else SHIP."""
    outcomes = {check.outcome for check in found}
    return "DON'T SHIP" if "failed" in outcomes else "ASK MORE" if "undecided" in outcomes else "SHIP"


def _judge(metrics: Row) -> Check:
    judge = metrics.get("judge")
    if judge is None or judge["kind"] not in MAY_DECIDE:
        return Check(
            "judge",
            "undecided",
            "the judge is what was optimized, which is too kind to it: set evaluate.judge to people, or hold out more "
            "judgements, for a judge that learns from these alone",
        )
    if judge["can_tell"] is False:
        return Check("judge", "undecided", f"{judge['name']} is not shown to be right more often than not")
    return Check("judge", "passed", f"{judge['name']} did not judge what it was optimized for")


def _win_rate(metrics: Row, wanted: float | None) -> Check:
    won, aim = won_by(metrics), 0.5 if wanted is None else wanted
    named = f"{aim:.1%}" + (", where SFT is as good" if wanted is None else ", the goal")
    return _above("win rate over SFT", won, aim, named)


def _above(name: str, won: dict[str, float], aim: float, named: str) -> Check:
    """Whether a win rate's interval lies above `aim`, below it, or around it."""
    found = f"{won['estimate']:.1%} ({won['low']:.1%} to {won['high']:.1%}, {won['num_prompts']} prompts)"
    if won["low"] >= aim and won["low"] > 0.5:
        return Check(name, "passed", f"{found}, above {named}")
    if won["high"] < aim:
        return Check(name, "failed", f"{found}, below {named}")
    if aim < won["estimate"] < 1:
        needed = max(to_show(won["estimate"], aim), int(won["num_prompts"]) + 1)
        return Check(name, "undecided", f"{found}, around {named}; about {needed:,} prompts would tell", needed)
    return Check(name, "undecided", f"{found}, around {named}; more prompts may well tell that it is below")


def _kl(metrics: Row, wanted: float | None) -> Check:
    found = metrics["kl_nats_per_token"]
    if wanted is None:
        return Check("KL from SFT", "not checked", f"{found:.3f} nats per token; the run file's goal has no kl")
    said = f"{found:.3f} nats per token, at most {wanted} wanted"
    return Check("KL from SFT", "passed" if found <= wanted else "failed", said)


def _round_before(metrics: Row) -> list[Check]:
    """From round 2 on, the aligned model against the winner of the round before."""
    if (began := metrics.get("began_from")) is None:
        return []
    name = f"over round {began['round']}"
    won, judge = over_round_before(metrics) or (None, {"kind": "nobody", "name": "nobody", "can_tell": False})
    if won is None or judge["kind"] not in MAY_DECIDE or judge["can_tell"] is False:
        return [Check(name, "not checked", f"the judge that compares the two is {judge['name']}, which cannot tell")]
    return [_above(name, won, 0.5, f"50.0%, where round {began['round']} is as good")]


def _baselines(metrics: Row) -> list[Check]:
    """The aligned model against each cheaper way that was evaluated."""
    apart = {"sft", ROUND_BEFORE, *BEST}
    over = {label: won for label, won in metrics["win_rates_over"].items() if label not in apart}
    if not over:
        cheaper = "a system prompt, or examples in the prompt, may do as well: evaluate.baselines compares"
        return [Check("cheaper ways", "not checked", cheaper)]
    return [
        _above(f"over {NAMES.get(label, label)}", won, 0.5, "50.0%, where that is as good")
        for label, won in over.items()
    ]


def _best_of(metrics: Row) -> list[Check]:
    """The aligned model against the best of several answers of SFT, which take no training and many more tokens."""
    won = metrics["win_rates_over"].get("sft_best")
    if won is None:
        return []
    n = metrics["best_of"]["n"]
    found = _above(f"over SFT, best of {n}", won, 0.5, "50.0%, where that is as good")
    if found.outcome == "passed":
        return [found]
    costs = metrics["sft_best"]["sampled_tokens"] / metrics["aligned"]["sampled_tokens"]
    return [Check(found.name, "not checked", f"{found.says}; it samples {costs:.1f} times the tokens for an answer")]


def _ends(answers: Sequence[Row]) -> Check:
    """Answers that end by themselves: fewer than SFT's beyond what chance explains is a regression."""
    change = _change(answers, lambda row, label: float(row["finish"][label] == "eos"))
    if change is None:
        return Check("endings", "not checked", "the answers of this evaluation do not say how they ended")
    mean, low, high = change
    ended = sum(row["finish"]["aligned"] == "eos" for row in answers) / len(answers)
    said = f"{ended:.1%} end by themselves, {mean:+.1%} against SFT's ({low:+.1%} to {high:+.1%})"
    return Check("endings", "failed" if high < 0 else "passed", said)


def _length(answers: Sequence[Row], most: float) -> Check:
    change = _change(answers, lambda row, label: float(row["num_tokens"][label]))
    if change is None:
        return Check("length", "not checked", "the answers of this evaluation do not say how long they are")
    before = sum(row["num_tokens"]["sft"] for row in answers) / len(answers)
    mean, low, high = (value / before for value in change)
    said = f"{mean:+.0%} in tokens, against SFT's answers ({low:+.0%} to {high:+.0%}), at most {most:+.0%} wanted"
    return Check("length", "failed" if low > most else "passed" if high <= most else "undecided", said)


def _change(answers: Sequence[Row], figure: Callable[[Row, str], float]) -> tuple[float, float, float] | None:
    """(mean, low, high) of a figure of the aligned answers less that of SFT's, paired and clustered by prompt.

    The interval is Student's t over the prompts' means: 95 % of it covers the change in the mean of all prompts. None
    with fewer than two prompts, or where rows lack the figure.
    """
    from scipy.stats import t

    by_prompt: dict[str, list[float]] = defaultdict(list)
    try:
        for row in answers:
            by_prompt[row["prompt_id"]].append(figure(row, "aligned") - figure(row, "sft"))
    except KeyError:  # an evaluation of an earlier version
        return None
    means = [sum(values) / len(values) for values in by_prompt.values()]
    if len(means) < 2:
        return None
    mean = sum(means) / len(means)
    error = math.sqrt(sum((value - mean) ** 2 for value in means) / (len(means) - 1) / len(means))
    half = float(t.ppf((1 + LEVEL) / 2, len(means) - 1)) * error
    return mean, mean - half, mean + half
