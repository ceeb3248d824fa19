"""The win rate's interval holds the truth as often as it says, and is scipy's where each prompt is compared once."""

import random

import pytest
from scipy.stats import binomtest

from trueup.evaluation.intervals import win_rate, wins

TRIALS = 400
ALLOWED = 0.92  # of 0.95: two and a half standard errors of 400 trials below


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


@pytest.mark.parametrize(("size", "shared"), [(1, 0.0), (2, 0.0), (4, 0.5), (4, 1.0)])
@pytest.mark.parametrize("p", [0.5, 0.8, 0.97, 1.0])
def test_the_interval_covers_the_true_rate(p: float, size: int, shared: float) -> None:
    draw = random.Random(f"{p} {size} {shared}")
    for num_prompts in (2, 10, 20, 84):
        held = 0
        for _ in range(TRIALS):
            found = win_rate(*outcomes(draw, p, num_prompts, size, shared))
            held += found["low"] - 1e-12 <= p <= found["high"] + 1e-12
        assert held / TRIALS >= ALLOWED, (num_prompts, held / TRIALS)


@pytest.mark.parametrize(("won", "of"), [(0, 1), (1, 1), (1, 2), (7, 10), (19, 20), (20, 20), (0, 9), (65, 84)])
def test_one_comparison_a_prompt_gives_clopper_and_pearson(won: int, of: int) -> None:
    found = win_rate([1.0] * won + [0.0] * (of - won), [str(i) for i in range(of)])
    exact = binomtest(won, of).proportion_ci(0.95, "exact")
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert (found["estimate"], found["num_prompts"]) == (won / of, of)


def test_repeating_a_prompts_comparisons_adds_no_evidence() -> None:
    once = win_rate([1, 1, 1, 0, 1, 0, 1, 1], list("abcdefgh"))
    often = win_rate([1, 1, 1, 0, 1, 0, 1, 1] * 25, list("abcdefgh") * 25)
    assert often == pytest.approx(once)


def test_independent_comparisons_of_a_prompt_narrow_the_interval_but_no_further_than_their_number() -> None:
    draw = random.Random(5)
    found, ids = outcomes(draw, 0.7, 40, 4, 0.0)
    clustered, each = win_rate(found, ids), binomtest(int(sum(found)), 160).proportion_ci(0.95, "exact")
    alone = binomtest(round(sum(found) / 4), 40).proportion_ci(0.95, "exact")
    assert each.high - each.low <= clustered["high"] - clustered["low"] + 1e-9 < alone.high - alone.low


def test_the_higher_score_wins_and_ties_count_half() -> None:
    assert wins([2.0, 1.0, 0.0], [1.0, 1.0, 1.0]) == [1.0, 0.5, 0.0]


def test_swapping_the_sides_mirrors_the_interval() -> None:
    a, b, ids = [3.0, 1, 1, 2, 5, 0], [1.0, 1, 2, 0, 2, 1], ["x", "x", "y", "y", "z", "w"]
    one, other = win_rate(wins(a, b), ids), win_rate(wins(b, a), ids)
    assert (one["estimate"], one["low"]) == pytest.approx((1 - other["estimate"], 1 - other["high"]))


def test_prompts_count_alike_whatever_their_number_of_comparisons() -> None:
    assert win_rate([1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"])["estimate"] == 0.5
