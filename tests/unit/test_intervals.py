"""The win rate's interval holds the truth as often as it says, and is scipy's where each prompt is compared once."""

import random

import numpy as np
import pytest
from scipy.stats import binom, binomtest, kurtosis, norm, t

from trueup.evaluation.intervals import FEWEST, num_needed, win_rate, wins

TRIALS = 400


def outcomes(
    draw: random.Random, p: float, num_prompts: int, size: int, shared: float
) -> tuple[list[float], list[str]]:
    """Comparisons won with probability p; those of a prompt share their outcome with probability `shared` each."""
    found, ids = [], []
    for number in range(num_prompts):
        common = draw.random() < p
        found += [float(common if draw.random() < shared else draw.random() < p) for _ in range(size)]
        ids += [str(number)] * size
    return found, ids


# (prompts, comparisons each, share of these that are copies of one, true rate, and of one comparison each the exact
# coverage: the sum of the binomial probabilities of the numbers of wins whose interval holds the rate)
CELLS = [
    (10, 1, 0.0, 0.97, sum(binom.pmf(k, 10, 0.97) for k in (9, 10))),
    (10, 1, 0.0, 0.5, sum(binom.pmf(k, 10, 0.5) for k in range(2, 9))),
    (20, 1, 0.0, 0.97, sum(binom.pmf(k, 20, 0.97) for k in (18, 19, 20))),
    (200, 1, 0.0, 0.75, 0.95),
    (40, 4, 0.5, 0.75, 0.95),
    (80, 4, 0.0, 0.9, 0.95),
    (20, 4, 1.0, 0.5, sum(binom.pmf(k, 20, 0.5) for k in range(6, 15))),
]


@pytest.mark.parametrize(("num_prompts", "size", "shared", "p", "expected"), CELLS)
def test_the_interval_holds_the_truth_as_often_as_it_should(
    num_prompts: int, size: int, shared: float, p: float, expected: float
) -> None:
    """docs/verdict.md has the whole table; here the tolerance is two standard errors of the trials and 2 % besides."""
    draw = random.Random(f"{num_prompts} {size} {shared} {p}")
    held = 0
    for _ in range(TRIALS):
        found = win_rate(*outcomes(draw, p, num_prompts, size, shared))
        held += found["low"] <= p <= found["high"]
    error = 2 * (expected * (1 - expected) / TRIALS) ** 0.5
    assert held / TRIALS == pytest.approx(expected, abs=error + (0.02 if size > 1 or num_prompts > 100 else 0.005))


@pytest.mark.parametrize(("won", "of"), [(0, 1), (1, 1), (1, 2), (7, 10), (19, 20), (20, 20), (0, 9), (65, 84)])
def test_one_comparison_a_prompt_gives_wilsons_interval(won: int, of: int) -> None:
    found = win_rate([1.0] * won + [0.0] * (of - won), [str(i) for i in range(of)])
    exact = binomtest(won, of).proportion_ci(0.95, "wilson")
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert (found["estimate"], found["num_prompts"]) == (won / of, of)


def test_how_many_prompts_a_narrower_interval_takes() -> None:
    """Four times as many make it half as wide."""
    assert num_needed({"low": 0.3, "high": 0.7, "num_prompts": 20}) == 80
    assert num_needed({"low": 0.9, "high": 1.0, "num_prompts": 9}) == FEWEST


def test_repeating_a_prompts_comparisons_adds_no_evidence() -> None:
    once = win_rate([1, 1, 1, 0, 1, 0, 1, 1], list("abcdefgh"))
    often = win_rate([1, 1, 1, 0, 1, 0, 1, 1] * 25, list("abcdefgh") * 25)
    assert often == pytest.approx(once)


def test_independent_comparisons_of_a_prompt_narrow_the_interval_but_no_further_than_their_number() -> None:
    draw = random.Random(5)
    found, ids = outcomes(draw, 0.7, 40, 4, 0.0)
    clustered, each = win_rate(found, ids), binomtest(int(sum(found)), 160).proportion_ci(0.95, "wilson")
    alone = binomtest(round(sum(found) / 4), 40).proportion_ci(0.95, "wilson")
    assert each.high - each.low <= clustered["high"] - clustered["low"] + 1e-9 < alone.high - alone.low


def test_the_higher_score_wins_and_ties_count_half() -> None:
    assert wins([2.0, 1.0, 0.0], [1.0, 1.0, 1.0]) == [1.0, 0.5, 0.0]


def test_swapping_the_sides_mirrors_the_interval() -> None:
    a, b, ids = [3.0, 1, 1, 2, 5, 0], [1.0, 1, 2, 0, 2, 1], ["x", "x", "y", "y", "z", "w"]
    one, other = win_rate(wins(a, b), ids), win_rate(wins(b, a), ids)
    assert (one["estimate"], one["low"]) == pytest.approx((1 - other["estimate"], 1 - other["high"]))


def test_prompts_count_alike_whatever_their_number_of_comparisons() -> None:
    assert win_rate([1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"])["estimate"] == 0.5


def test_the_end_nearer_to_one_half_is_further_out_where_few_prompts_decide() -> None:
    """Both are roots of (estimate - p)^2 = q^2 p (1 - p) / n, each with its own n; the kurtosis is scipy's."""
    means = np.array([1.0] * 24 + [0.75] * 3 + [0.25, 0.0, 0.5])
    found = win_rate([float(i < 4 * m) for m in means for i in range(4)], [str(i // 4) for i in range(4 * len(means))])
    number, p = len(means), means.mean()
    worth = p * (1 - p) / (means.var(ddof=1) / number)
    freedom = 2 * number / (2 + 0.7 * kurtosis(means))
    ratio = t.ppf(0.975, freedom) / t.ppf(0.975, number)
    assert ratio > 1.05 and number < worth / ratio**2 < 4 * number

    def ends(n: float) -> tuple[float, float]:
        q = norm.ppf(0.975) ** 2 / n
        low, high = sorted(np.roots([1 + q, -2 * p - q, p**2]))
        return float(low), float(high)

    assert (found["low"], found["high"]) == pytest.approx((ends(worth / ratio**2)[0], ends(worth)[1]))
