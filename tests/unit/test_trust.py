"""How far a judge can be trusted, and people's labels with a judge's help."""

import random
from typing import Any

import pytest

from trueup.judges import trust
from trueup.judges.protocol import Answer, ByScore, Judged, Question, outcome, preference
from trueup.run.goal import answer_to_goal, trusted, verdict


def pairs(number: int, right: int) -> list[dict[str, Any]]:
    """One pair for each prompt; a judge that likes length is right on the first `right` of them."""
    texts = [("longer", "short") if i < right else ("short", "longer") for i in range(number)]
    asked = [{"role": "user", "content": "?"}]
    return [{"prompt_id": str(i), "prompt": asked, "chosen": c, "rejected": r} for i, (c, r) in enumerate(texts)]


LENGTH = ByScore("length", lambda prompts, answers: [float(len(answer.text)) for answer in answers])


def judge_of(number: int, right: int) -> dict[str, Any]:
    found = trust.measure(LENGTH, pairs(number, right), "pairs that people judged")
    return {"kind": "function", "name": "length", "trust": found, "can_tell": trust.can_tell(found)}


@pytest.mark.parametrize(("number", "right", "can"), [(40, 30, True), (40, 22, False), (4, 4, False), (9, 9, False)])
def test_a_judge_can_tell_where_the_interval_of_its_accuracy_is_above_one_half(
    number: int, right: int, can: bool
) -> None:
    judge = judge_of(number, right)
    assert judge["trust"]["estimate"] == right / number
    assert judge["can_tell"] is can
    won = {"estimate": 0.8, "low": 0.7, "high": 0.9, "num_prompts": 84}
    said, goal = verdict(won, judge=judge), answer_to_goal({"win_rate": 0.6, "kl": None}, won, 0.1, judge)
    assert ("is better: it wins 80.0%" in said, "cannot tell" in said) == (can, not can)
    assert goal["win_rate"]["met"] is can
    assert f"right on {right / number:.1%}" in trusted(judge)
    assert ("10 prompts at least are needed" in trusted(judge)) == (number < 10)


def test_too_few_held_out_prompts_are_no_claim() -> None:
    won = {"estimate": 1.0, "low": 0.7, "high": 1.0, "num_prompts": 9}
    assert "9 held-out prompts are too few for a claim, and 10 at least are needed" in verdict(
        won, judge=judge_of(40, 35)
    )
    assert not answer_to_goal({"win_rate": 0.6, "kl": None}, won, 0.1, judge_of(40, 35))["win_rate"]["met"]


def test_calibration_says_how_often_it_is_right_when_it_is_so_sure() -> None:
    """By hand: sure 0.55 once and right; 0.8 twice, right once; 0.95 and 1.0, right both times; 0.5 prefers nothing."""
    found = trust.calibration([0.55, 0.8, 0.2, 0.95, 1.0, 0.5])
    assert [(bin["num"], bin["right"]) for bin in found] == [(1, 1.0), (2, 0.5), (2, 1.0)]
    assert [bin["sure"] for bin in found] == pytest.approx([0.55, 0.8, 0.975])


def test_what_a_judge_does_not_answer_is_counted() -> None:
    class Silent:
        name = "silent"

        def judge(self, questions: list[Question]) -> Judged:
            return Judged([None] * len(questions))

    found = trust.measure(Silent(), pairs(12, 6), "pairs")
    assert found is not None
    assert (found["num_pairs"], found["num_without_answer"], trust.can_tell(found)) == (0, 12, False)
    assert trust.measure(LENGTH, [], "pairs") is None


@pytest.mark.parametrize("accuracy", [0.5, 0.8, 1.0])
def test_people_with_a_judges_help_are_right_whatever_the_judge_is_and_closer_where_it_is_good(accuracy: float) -> None:
    draw, truth, held, error = random.Random(f"{accuracy}"), 0.7, 0, {"people": 0.0, "both": 0.0}
    for _ in range(400):
        people = [float(draw.random() < truth) for _ in range(200)]
        judged = [a if draw.random() < accuracy else 1 - a for a in people]
        found = trust.prediction_powered(
            [(str(i), people[i]) for i in range(50)], [(str(i), judged[i]) for i in range(200)]
        )
        assert found is not None
        held += found["low"] <= truth <= found["high"]
        error["people"] += (sum(people[:50]) / 50 - truth) ** 2
        error["both"] += (found["estimate"] - truth) ** 2
    assert held / 400 > 0.9
    if accuracy == 0.5:
        assert error["both"] < 1.1 * error["people"]
    else:
        assert error["both"] < (0.85 if accuracy < 1 else 0.4) * error["people"]


def test_a_perfect_judge_makes_the_labels_of_all_prompts() -> None:
    """Where the judge says what people say, the weight is near n / (n + N) of the rest: all 200 count alike."""
    people = [float(i % 3 > 0) for i in range(200)]
    every = [(str(i), a) for i, a in enumerate(people)]
    found = trust.prediction_powered(every[:50], every)
    assert found is not None
    assert found["estimate"] == pytest.approx(sum(people) / 200, abs=0.01)
    assert trust.prediction_powered(every[:1], every) is None
    assert trust.prediction_powered(every, every) is None


def test_a_score_judge_asks_for_each_answer_once_and_favours_the_higher_score() -> None:
    seen: list[str] = []

    def scores(prompts: list[Any], answers: list[Answer]) -> list[float]:
        seen.extend(answer.text for answer in answers)
        return [float(len(answer.text)) for answer in answers]

    asked = [{"role": "user", "content": "?"}]
    questions = [Question("p", asked, Answer("abc"), Answer(other)) for other in ("a", "abcd", "xyz")]
    judged = ByScore("length", scores).judge(questions)
    assert [outcome(answer) for answer in judged.answers if answer is not None] == [1.0, 0.0, 0.5]
    assert sorted(seen) == ["a", "abc", "abcd", "xyz"]


def test_a_preference_is_even_for_equal_scores_alone() -> None:
    assert preference(1.0, 1.0) == 0.5
    assert preference(1.0 + 1e-17 * 3, 1.0) == 0.5  # the same number
    assert preference(1e-18, 0.0) > 0.5 > preference(0.0, 1e-18)
    assert (preference(1e6, -1e6), preference(-1e6, 1e6)) == pytest.approx((1.0, 0.0))
    assert preference(2.0, 1.0) == pytest.approx(0.7310585786300049)  # e / (1 + e)
