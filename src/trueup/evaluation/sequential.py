"""When people have been asked enough: an interval that holds however often one looks, and how many more are likely.

The confidence sequence of a Beta-Binomial mixture (Robbins 1970, "Statistical methods related to the law of the
iterated logarithm"; Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences"). For a rate p, the likelihood ratio of the outcomes under a uniform mixture of rates to that under p is a
martingale; it ever reaches 1 / alpha with probability alpha at most (Ville). The interval holds the rates for which it
has not. The ratio is convex in each outcome, so that it is a supermartingale for outcomes between 0 and 1 as well: a
tie counts half, and the comparisons of one prompt, which are not independent, are one outcome, their mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

from trueup.evaluation.intervals import LEVEL

Answer = Literal["met", "not met", "open"]
MOST = 10_000  # more prompts than anybody is asked about
EDGE = 1e-12  # rates nearer to 0 and 1 are not told apart


def by_prompt(labels: Iterable[tuple[Hashable, float]], each: int = 1) -> list[float]:
    """One outcome for each prompt that has `each` labels or more: the mean of its first `each`, in [0, 1].

    `labels` are (prompt, outcome in [0, 1]) in the order in which they were given. A prompt counts once all its
    labels are there: the mean of fewer would be counted again when the next one comes.
    """
    found: dict[Hashable, list[float]] = {}
    for prompt, outcome in labels:
        found.setdefault(prompt, []).append(outcome)
    return [sum(some[:each]) / each for some in found.values() if len(some) >= each]


def interval(outcomes: Sequence[float]) -> dict[str, float]:
    """The mean of `outcomes`, (prompts,) in [0, 1], and an interval that holds the true mean at every look at once.

    With probability 95 % at least. Returns estimate, low, high (fractions) and num_prompts; 0 to 1 of nothing.
    """
    from scipy.optimize import brentq

    number, won = len(outcomes), sum(outcomes)
    if not number:
        return {"estimate": 0.5, "low": 0.0, "high": 1.0, "num_prompts": 0}
    mean = won / number

    def evidence(p: float) -> float:
        return _evidence(won, number, p)

    low = brentq(evidence, EDGE, mean) if won > 0 and evidence(EDGE) > 0 else 0.0
    high = brentq(evidence, mean, 1 - EDGE) if won < number and evidence(1 - EDGE) > 0 else 1.0
    return {"estimate": mean, "low": float(low), "high": float(high), "num_prompts": number}


def answer(outcomes: Sequence[float], wanted: float) -> Answer:
    """Whether a win rate of `wanted` is met, as far as these outcomes show, whenever it is asked."""
    number, won = len(outcomes), sum(outcomes)
    if not number or _evidence(won, number, wanted) < 0:
        return "open"
    return "met" if won / number >= wanted else "not met"


def num_more(outcomes: Sequence[float], wanted: float) -> int | None:
    """About how many more prompts the answer takes, if people go on as they did; None above MOST.

    The rate that they go on with is the mean of `outcomes` and of one win and one loss besides.
    """
    number, won = len(outcomes), sum(outcomes)
    rate = (won + 1) / (number + 2)

    def known(more: int) -> bool:
        return _evidence(won + more * rate, number + more, wanted) >= 0

    if not known(MOST):
        return None
    low, high = 0, MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if known(middle) else (middle + 1, high)
    return low


def _evidence(won: float, number: float, p: float) -> float:
    """log of the mixture's likelihood ratio to the rate `p`, less the log of 1 / alpha: not negative where p is out."""
    from math import log, log1p

    from scipy.special import betaln

    lost, p = number - won, min(max(p, EDGE), 1 - EDGE)
    ratio = float(betaln(1 + won, 1 + lost)) - won * log(p) - lost * log1p(-p)
    return ratio - log(1 / (1 - LEVEL))
