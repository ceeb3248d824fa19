"""The A/B's interval is that of Robbins' mixture, holds at every look, and says how many more prompts are likely."""

import math
import random
import statistics

import pytest
from scipy.integrate import quad

from trueup.evaluation import sequential


def mixture(won: float, number: float, p: float) -> float:
    """The likelihood ratio of a uniform mixture of rates to the rate `p`, by numeric integration."""
    lost = number - won
    return quad(lambda q: (q / p) ** won * ((1 - q) / (1 - p)) ** lost, 0, 1, epsabs=1e-12)[0]


@pytest.mark.parametrize(
    "outcomes", [[1, 1, 0, 1], [1.0] * 9, [0.0] * 7, [0.5, 1, 1, 0.25, 1, 1, 0], [1] * 30 + [0] * 12]
)
def test_at_the_ends_of_the_interval_the_mixtures_likelihood_ratio_is_20(outcomes: list[float]) -> None:
    found, won, number = sequential.interval(outcomes), sum(outcomes), len(outcomes)
    assert found["estimate"] == pytest.approx(won / number)
    for end, beyond in ((found["low"], 0.0), (found["high"], 1.0)):
        assert end == beyond or mixture(won, number, end) == pytest.approx(20, rel=1e-6)
    assert (found["low"] > 0, found["high"] < 1) == (won > 0, won < number) or number < 6


def test_after_some_wins_in_a_row_the_answer_is_known_as_the_closed_form_says() -> None:
    """n wins in a row: the ratio to one half is 2^n / (n + 1), which first exceeds 20 at n = 8."""
    assert 2**7 / 8 < 20 < 2**8 / 9
    assert [sequential.answer([1.0] * n, 0.5) for n in (7, 8)] == ["open", "met"]
    assert [sequential.answer([0.0] * n, 0.5) for n in (7, 8)] == ["open", "not met"]
    assert sequential.answer([], 0.5) == "open"
    assert sequential.interval([]) == {"estimate": 0.5, "low": 0.0, "high": 1.0, "num_prompts": 0}


def stopped(draw: random.Random, rate: float, most: int, tie: float = 0.0) -> int | None:
    """The number of prompts after which a look, one after each, finds an answer to one half."""
    done: list[float] = []
    while len(done) < most:
        done.append(0.5 if draw.random() < tie else float(draw.random() < rate))
        if sequential.answer(done, 0.5) != "open":
            return len(done)
    return None


@pytest.mark.parametrize("tie", [0.0, 0.3])
def test_looks_after_every_label_raise_a_false_alarm_in_fewer_than_5_percent(tie: float) -> None:
    draw = random.Random(f"alarm {tie}")
    alarms = sum(stopped(draw, 0.5, 200, tie) is not None for _ in range(300))
    assert alarms / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    assert tie or alarms > 0  # it does look


def test_the_number_of_labels_it_takes_is_about_the_one_that_is_foretold() -> None:
    draw = random.Random(1)
    taken = statistics.median(stopped(draw, 0.75, 2000) or 2000 for _ in range(200))
    foretold = sequential.num_more([1, 1, 1, 0] * 2, 0.5)
    assert foretold is not None
    assert taken == pytest.approx(foretold + 8, rel=0.5)


def test_what_is_known_takes_no_more_and_what_is_even_takes_more_than_anybody_is_asked() -> None:
    assert sequential.num_more([1.0] * 8, 0.5) == 0
    assert sequential.num_more([1.0, 0.0] * 20, 0.5) is None


def test_a_prompt_counts_once_with_the_mean_of_its_labels_and_when_it_has_them_all() -> None:
    labels = [("p", 1.0), ("q", 0.0), ("p", 0.0), ("r", 1.0), ("q", 0.0), ("p", 1.0)]
    assert sequential.by_prompt(labels, each=2) == [0.5, 0.0]
    assert sequential.by_prompt(labels, each=1) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_the_goals_at_the_ends_have_an_answer(wanted: float) -> None:
    assert sequential.answer([1.0, 0.0, 1.0], wanted) == ("met" if wanted == 0 else "not met")
