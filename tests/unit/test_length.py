"""The win rate at equal length: against scipy's optimum, on planted data, and its interval by prompt."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from trueup.evaluation import intervals, standings
from trueup.evaluation.length import length_controlled


def planted(number: int, theta: float, phi: float, shift: float, seed: int = 0) -> tuple[list[float], list[float]]:
    """Outcomes and differences in length: the odds at equal length are exp(theta), and longer is liked by phi."""
    rng = np.random.default_rng(seed)
    apart = 20 * rng.normal(shift, 1, number)
    won = rng.random(number) < expit(theta + phi * np.tanh(apart / apart.std()))
    return won.astype(float).tolist(), apart.tolist()


def names(number: int) -> list[str]:
    return [str(i) for i in range(number)]


def test_it_is_the_maximum_of_the_likelihood_of_alpacaeval_2() -> None:
    """Dubois et al. 2024, eq. 3, without the term for prompts: logit p = theta + phi tanh(difference / its spread)."""
    won, apart = planted(400, 0.4, 1.0, 0.5)
    won[::10] = [0.5] * 40  # ties
    y, x = np.array(won), np.tanh(np.array(apart) / np.std(apart))

    def loss(found: np.ndarray) -> float:
        eta = found[0] + found[1] * x
        return -float((y * log_expit(eta) + (1 - y) * log_expit(-eta)).sum())

    best = minimize(loss, np.zeros(2), method="BFGS").x
    assert length_controlled(won, apart, names(400))["estimate"] == pytest.approx(float(expit(best[0])), abs=2e-3)


def test_who_wins_by_length_alone_wins_half_at_equal_length() -> None:
    won, apart = planted(500, 0.0, 3.0, 1.0)
    found, plain = length_controlled(won, apart, names(500)), intervals.win_rate(won, names(500))
    assert plain["low"] > 0.7
    assert found["low"] < 0.5 < found["high"] and found["high"] - found["low"] < 0.25


def test_the_longer_one_of_each_comparison_wins() -> None:
    """No maximum is finite here; what is found is still even."""
    rng = np.random.default_rng(0)
    apart = 20 * rng.normal(0.7, 1, 300)
    found = length_controlled((apart > 0).astype(float).tolist(), apart.tolist(), names(300))
    assert found["low"] < 0.5 < found["high"]


def test_where_lengths_do_not_matter_it_is_the_win_rate() -> None:
    won, _ = planted(200, 0.8, 0.0, 0.0)
    plain = intervals.win_rate(won, names(200))
    assert length_controlled(won, [0.0] * 200, names(200)) == pytest.approx(
        {key: plain[key] for key in ("estimate", "low", "high")}
    )
    other = [(-1.0) ** (i // 2) for i in range(200)]  # as long as one another, whoever wins
    won = [float(i % 2) for i in range(100)] + [1.0] * 100
    assert length_controlled(won, other, names(200))["estimate"] == pytest.approx(0.75, abs=0.01)


def test_prompts_are_what_the_interval_counts() -> None:
    """Each comparison four times over says no more than once."""
    won, apart = planted(60, 0.5, 1.0, 0.5)
    once = length_controlled(won, apart, names(60))
    four = length_controlled(
        [w for w in won for _ in range(4)],
        [a for a in apart for _ in range(4)],
        [name for name in names(60) for _ in range(4)],
    )
    assert four == pytest.approx(once)


def test_an_interval_has_a_width_where_all_agree() -> None:
    found = length_controlled([1.0] * 20, [float(i % 7) for i in range(20)], names(20))
    assert found["low"] < 0.9 and found["high"] == pytest.approx(1, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [40, 84])
@pytest.mark.parametrize(("theta", "phi", "shift"), [(0.0, 1.5, 1.0), (1.0, 1.0, 0.5), (2.2, 0.0, 0.5)])
def test_the_interval_holds_the_truth_as_often_as_it_says(number: int, theta: float, phi: float, shift: float) -> None:
    held = 0
    for seed in range(300):
        won, apart = planted(number, theta, phi, shift, seed)
        found = length_controlled(won, apart, names(number))
        held += found["low"] <= float(expit(theta)) <= found["high"]
    assert held / 300 >= 0.92


def rate(estimate: float, low: float, high: float, **more: object) -> dict[str, object]:
    return {"estimate": estimate, "low": low, "high": high, "num_prompts": 84, **more}


def test_a_sentence_says_where_length_decides() -> None:
    figures = {"sft": {"mean_length_tokens": 20.0}, "aligned": {"mean_length_tokens": 41.0}}
    even = rate(0.55, 0.4, 0.7)
    said = standings.length_explains(figures | {"win_rate": rate(0.8, 0.7, 0.9, length_controlled=even)})
    assert said == [
        "At equal length it is neither better nor worse: 55.0% (95% interval 40.0% to 70.0%). Its answers have 41.0 "
        "tokens on average, SFT's 20.0."
    ]
    same = rate(0.75, 0.6, 0.85)
    assert standings.length_explains(figures | {"win_rate": rate(0.8, 0.7, 0.9, length_controlled=same)}) == []
    assert standings.length_explains({"win_rate_by_reward_model": rate(0.8, 0.7, 0.9)}) == []  # an earlier version
