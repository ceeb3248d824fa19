"""benchmarks/labels.py: what its hidden truths, its win rates and its curves say, by hand and in closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TROUBLE, OPEN, CLOSED = "My tent leaks. What now?", "How do I clean my tents?", "Do you sell tents?"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import label_parts.curves
    import label_parts.policies
    import label_parts.tasks

    return label_parts


@pytest.fixture
def tasks(parts: Any) -> Any:
    return parts.tasks


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("We can do that. Come by when you like.", 3.4),  # 1 two sentences + 0.8 short first + 1 no number + 0.6 commas
        ("We can do that! Come by when you like.", 2.6),  # the same - 0.8 exclamation mark
        ("We can do that in two days. Come by.", 2.4),  # 1 + 0.8 + 0.6, and a number
        ("Red, green, blue or black.", 1.8),  # one sentence: 0.8 + 1, and two commas
        ("I really do think that all of our tents are good in the rain.", 1.6),  # 14 words in one: 1 + 0.6
    ],
)
def test_what_a_form_is_worth(tasks: Any, answer: str, worth: float) -> None:
    assert tasks.TASKS["format"].truth("any prompt", answer) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("answer", "trouble", "open_", "closed"),
    [
        # warm first and asks back: 1.2 + 1 | names no tent, asks and is brief: -0.8 - 0.6 | brief, asks: 1 - 0.8
        ("I am sorry to hear that. When did it begin?", 2.2, -1.4, 0.2),
        # acts: -0.8 | acts and is brief, tent in the second sentence alone: 1.2 - 0.6 | brief, acts: 1 - 0.6
        ("Nothing is easier. Wash the tent with soap.", -0.8, 0.6, 0.4),
        # no part of it | the tent at once, brief: 0.8 - 0.6 | yes at once, brief: 1 + 1
        ("Yes, all our tents are here.", 0.0, 0.2, 2.0),
    ],
)
def test_the_worth_of_an_answer_depends_on_what_was_asked(
    tasks: Any, answer: str, trouble: float, open_: float, closed: float
) -> None:
    truth = tasks.TASKS["asked"].truth
    found = [truth(prompt, answer) for prompt in (TROUBLE, OPEN, CLOSED)]
    assert found == pytest.approx([trouble, open_, closed])


def test_a_long_answer_is_not_brief(tasks: Any) -> None:
    brief, long = (" ".join(["word"] * count) + "." for count in (25, 26))
    assert tasks.asked(CLOSED, brief) == 1.0
    assert tasks.asked(CLOSED, long) == 0.0


def test_a_prompt_that_first_tells_something_is_a_trouble(tasks: Any) -> None:
    assert [tasks.kind_of(prompt) for prompt in (TROUBLE, OPEN, CLOSED)] == ["trouble", "open", "closed"]


def test_a_win_rate_compares_every_answer_with_every_one_of_the_other_and_a_tie_is_a_half(parts: Any) -> None:
    first, second = np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([[1.0, 2.0], [1.0, 0.0]])
    # 1 against 1 and 2: 1/2 and 0; 3 against both: 1 and 1 | 0 against 1 and 0, twice: 0 and 1/2
    assert parts.policies.wins(first, second).tolist() == [2.5 / 4, 1 / 4]


def test_the_best_of_n_is_chosen_by_the_reward_and_worth_what_it_is_in_truth(parts: Any) -> None:
    truth, said = np.array([[1.0, 3.0], [0.0, 5.0]]), np.array([0.9, 0.1, 0.2, 0.8])
    assert parts.policies.chosen(truth, said).tolist() == [[1.0], [5.0]]


def test_the_votes_that_reach_a_level_are_interpolated_on_their_logarithm(parts: Any) -> None:
    line = {100: {0: 0.5, 1: 0.7}, 400: {0: 0.8}}  # means of 0.6 and 0.8
    assert parts.curves.votes_for(line, 0.7) == "200"  # half way between 100 and 400 by their logarithms
    assert parts.curves.votes_for(line, 0.6) == "100 or fewer"
    assert parts.curves.votes_for(line, 0.9) == "not reached with 400"


def test_differences_are_taken_on_the_seeds_that_both_have(parts: Any) -> None:
    ours, raw = {0: 0.8, 1: 0.7, 2: 0.9}, {0: 0.7, 1: 0.5, 3: 0.1}
    mean, low, high = parts.curves.difference(ours, raw)
    # of 0.1 and 0.2: t with one degree of freedom is 12.706 (Student's table), the standard error is 0.05
    assert (mean, low, high) == pytest.approx((0.15, 0.15 - 12.706 * 0.05, 0.15 + 12.706 * 0.05), abs=1e-4)
