"""The decision to ship: each check against its closed form, and what follows from all of them."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from trueup.evaluation import shipping
from trueup.evaluation.regressions import Check, Limits

GOAL = {"win_rate": 0.6, "kl": 0.5}
NO_GOAL: dict[str, float | None] = {"win_rate": None, "kl": None}


def won(low: float, estimate: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high, "num_prompts": 80}


def metrics(over_sft: dict[str, float], **others: Any) -> dict[str, Any]:
    judge = {"kind": "disjoint", "name": "a reward model on other labels", "trust": None, "can_tell": True}
    return {
        "win_rate": over_sft,
        "win_rate_by_reward_model": over_sft,
        "win_rates_over": {"sft": over_sft},
        "kl_nats_per_token": 0.3,
        "judge": judge,
    } | others


def answers(eos: list[tuple[bool, bool]], tokens: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Two answers for each prompt; of each pair, SFT's comes first."""
    return [
        {
            "prompt_id": str(i // 2),
            "finish": {
                side: "eos" if ended else "length" for side, ended in zip(("sft", "aligned"), ends, strict=True)
            },
            "num_tokens": dict(zip(("sft", "aligned"), long, strict=True)),
        }
        for i, (ends, long) in enumerate(zip(eos, tokens, strict=True))
    ]


ALIKE = answers([(True, True)] * 20, [(10, 10), (12, 11)] * 10)


def outcome(found: list[Check], name: str) -> str:
    return next(check.outcome for check in found if check.name == name)


def decided(figures: dict[str, Any], rows: list[dict[str, Any]] = ALIKE, goal: Any = GOAL) -> str:
    return shipping.decide(shipping.checks(figures, rows, goal, Limits()))


def test_what_is_shown_to_meet_the_goal_ships() -> None:
    assert decided(metrics(won(0.62, 0.7, 0.8))) == "SHIP"


@pytest.mark.parametrize(
    ("interval", "decision"),
    [((0.5, 0.55, 0.59), "DON'T SHIP"), ((0.55, 0.65, 0.75), "ASK MORE"), ((0.55, 0.58, 0.7), "ASK MORE")],
)
def test_an_interval_below_the_goal_fails_and_one_around_it_asks_for_more(
    interval: tuple[float, float, float], decision: str
) -> None:
    assert decided(metrics(won(*interval))) == decision


def test_how_many_prompts_would_tell_is_the_sample_size_of_fleiss() -> None:
    check = next(
        c for c in shipping.checks(metrics(won(0.55, 0.7, 0.8)), ALIKE, GOAL, Limits()) if c.name.startswith("win")
    )
    a, b = stats.norm.ppf(0.975) * np.sqrt(0.6 * 0.4), stats.norm.ppf(0.8) * np.sqrt(0.7 * 0.3)
    assert check.num_needed == int(np.ceil(((a + b) / 0.1) ** 2))
    near = next(
        c for c in shipping.checks(metrics(won(0.5, 0.59, 0.7)), ALIKE, GOAL, Limits()) if c.name.startswith("win")
    )
    assert near.num_needed is None  # the goal is above what was found: more prompts would not show it


@pytest.mark.parametrize("kind", ["optimized", None])
def test_what_was_optimized_never_decides(kind: str | None) -> None:
    judge = None if kind is None else {"kind": kind, "name": "the reward", "trust": None, "can_tell": True}
    figures = metrics(won(0.7, 0.8, 0.9), judge=judge)
    if kind is None:
        del figures["judge"], figures["win_rate"]  # a record of an earlier version
    assert decided(figures) == "ASK MORE"


def test_a_judge_that_cannot_tell_decides_nothing() -> None:
    judge = {"kind": "disjoint", "name": "a reward model", "trust": None, "can_tell": False}
    assert decided(metrics(won(0.7, 0.8, 0.9), judge=judge)) == "ASK MORE"


def test_a_cheaper_way_that_wins_is_a_reason_not_to_ship() -> None:
    over = {"sft": won(0.7, 0.8, 0.9), "system_prompt": won(0.2, 0.3, 0.4)}
    figures = metrics(won(0.7, 0.8, 0.9), win_rates_over=over)
    assert decided(figures) == "SHIP"  # the judge knows answers of SFT alone
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "over base, system prompt") == "not checked"
    figures["judge"] = figures["judge"] | {"kind": "endpoint"}
    assert decided(figures) == "DON'T SHIP"
    over["system_prompt"] = won(0.4, 0.52, 0.6)
    assert decided(figures) == "ASK MORE"
    over["system_prompt"] = won(0.55, 0.6, 0.7)
    assert decided(figures) == "SHIP"


def later(over: dict[str, float], **judges: Any) -> dict[str, Any]:
    """Figures of a second round, in which the verdict's judge, or others in its place, compared it with the first."""
    good = won(0.7, 0.8, 0.9)
    disjoint = {"name": "d", "trust": None, "can_tell": True, "win_rates_over": {"sft": good, "round_before": over}}
    began = {"round": 1, "adapter": "dpo"}
    return metrics(good, began_from=began, judges=judges or {"disjoint": disjoint})


@pytest.mark.parametrize(
    ("over", "decision"),
    [((0.55, 0.6, 0.7), "SHIP"), ((0.4, 0.55, 0.7), "ASK MORE"), ((0.2, 0.3, 0.4), "DON'T SHIP")],
)
def test_a_later_round_has_to_be_better_than_the_one_before(over: tuple[float, float, float], decision: str) -> None:
    figures = later(won(*over))
    assert decided(figures) == decision
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "over round 1") in ("passed", "undecided", "failed")


def test_what_was_optimized_says_nothing_of_rounds() -> None:
    """People are asked about SFT alone; the only other judge is what was optimized."""
    people = {"name": "people", "trust": None, "can_tell": None, "win_rates_over": {"sft": won(0.7, 0.8, 0.9)}}
    reward = {"name": "r", "trust": None, "can_tell": True, "win_rates_over": {"round_before": won(0.2, 0.3, 0.4)}}
    figures = later(won(0.2, 0.3, 0.4), people=people, optimized=reward)
    figures["judge"] = {"kind": "people", "name": "people", "trust": None, "can_tell": None}
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "over round 1") == "not checked"


def test_the_best_of_the_aligned_models_own_answers_is_no_reason_against_it() -> None:
    good = won(0.7, 0.8, 0.9)
    over = {"sft": good, "base": good, "sft_best_of_4": good, "aligned_best_of_4": won(0.1, 0.2, 0.3)}
    figures = metrics(good, win_rates_over=over)
    assert decided(figures) == "SHIP"
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "over SFT, best of 4") == "passed"


def test_a_kl_above_the_goal_is_a_reason_not_to_ship() -> None:
    assert decided(metrics(won(0.7, 0.8, 0.9), kl_nats_per_token=0.6)) == "DON'T SHIP"
    assert decided(metrics(won(0.7, 0.8, 0.9), kl_nats_per_token=0.6), goal=NO_GOAL) == "SHIP"


def test_fewer_endings_than_chance_explains_are_a_regression() -> None:
    rng = np.random.default_rng(0)
    ends = [(True, bool(rng.random() > 0.4)) for _ in range(40)]
    rows = answers(ends, [(10, 10)] * 40)
    check = next(c for c in shipping.checks(metrics(won(0.7, 0.8, 0.9)), rows, GOAL, Limits()) if c.name == "endings")
    differences = np.array([float(after) - float(before) for before, after in ends]).reshape(-1, 2).mean(1)
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert check.outcome == "failed" and f"({interval.low:+.1%} to {interval.high:+.1%})" in check.says
    one_of_many = answers([(True, True)] * 39 + [(True, False)], [(10, 10)] * 40)
    assert outcome(shipping.checks(metrics(won(0.7, 0.8, 0.9)), one_of_many, GOAL, Limits()), "endings") == "passed"


@pytest.mark.parametrize(("after", "expected"), [((20, 21), "failed"), ((12, 13), "passed"), ((6, 24), "undecided")])
def test_answers_may_grow_by_so_much(after: tuple[int, int], expected: str) -> None:
    lengths = [(10, number) for number in after for _ in range(2)] * 5  # the prompts differ, and not their answers
    rows = answers([(True, True)] * 20, lengths)
    assert outcome(shipping.checks(metrics(won(0.7, 0.8, 0.9)), rows, GOAL, Limits()), "length") == expected


def test_answers_of_an_earlier_version_are_not_checked() -> None:
    rows = [{"prompt_id": "a", "sft": "x", "aligned": "y"}, {"prompt_id": "b", "sft": "x", "aligned": "y"}]
    found = shipping.checks(metrics(won(0.7, 0.8, 0.9)), rows, GOAL, Limits())
    assert {outcome(found, "endings"), outcome(found, "length")} == {"not checked"}
    assert shipping.decide(found) == "SHIP"


def measured(low: float, high: float, floor: float, refusals: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
    """The abilities of an evaluation whose general text changed so, in nats per token."""
    middle = (low + high) / 2
    text = {
        "text": "a text",
        "num_documents": 48,
        "change_from": {"sft": {"estimate": middle, "low": low, "high": high}},
        "noise_floor": floor,
    }
    change = {"estimate": sum(refusals) / 2, "low": refusals[0], "high": refusals[1]}
    share = {"sft": 0.1, "aligned": 0.1 + change["estimate"]}
    return {"general_text": text, "refusals": {"rule": "a rule", "share": share, "change_from_sft": change}}


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((0.11, 0.2), "failed"), ((0.05, 0.2), "undecided"), ((0.02, 0.09), "passed"), ((-0.4, -0.3), "passed")],
)
def test_a_text_is_predicted_worse_only_beyond_the_noise_floor(interval: tuple[float, float], expected: str) -> None:
    figures = metrics(won(0.7, 0.8, 0.9), abilities=measured(*interval, floor=0.1))
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "general text") == expected
    decisions = {"failed": "DON'T SHIP", "undecided": "ASK MORE", "passed": "SHIP"}
    assert decided(figures) == decisions[expected]


def test_more_refusals_are_a_regression_unless_they_are_wanted() -> None:
    figures = metrics(won(0.7, 0.8, 0.9), abilities=measured(0, 0, 0.1, refusals=(0.02, 0.1)))
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "refusals") == "failed"
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits(more_refusals=0.03)), "refusals") == "passed"
    fewer = metrics(won(0.7, 0.8, 0.9), abilities=measured(0, 0, 0.1, refusals=(-0.1, 0.02)))
    assert outcome(shipping.checks(fewer, ALIKE, GOAL, Limits()), "refusals") == "passed"


def test_what_an_earlier_version_did_not_measure_is_said() -> None:
    found = {c.name: c for c in shipping.checks(metrics(won(0.7, 0.8, 0.9)), ALIKE, GOAL, Limits())}
    for name in ("refusals", "general text"):
        assert found[name].outcome == "not checked" and "trueup evaluate RUN.yaml --rebuild" in found[name].says


def test_where_people_judged_another_judge_that_can_tell_compares_with_cheaper_ways() -> None:
    """People are asked about SFT alone."""
    good = won(0.7, 0.8, 0.9)
    judges = {
        "optimized": {"name": "r", "can_tell": True, "win_rates_over": {"sft": good, "base": won(0.7, 0.8, 0.9)}},
        "endpoint": {"name": "e", "can_tell": True, "win_rates_over": {"sft": good, "base": won(0.2, 0.3, 0.4)}},
    }
    people = {"kind": "people", "name": "people", "trust": None, "can_tell": None}
    figures = metrics(good, judge=people, judges=judges)
    assert outcome(shipping.checks(figures, ALIKE, GOAL, Limits()), "over base, bare") == "failed"
    judges["disjoint"] = judges.pop("endpoint")
    found = next(c for c in shipping.checks(figures, ALIKE, GOAL, Limits()) if c.name == "over base, bare")
    assert found.outcome == "not checked" and "a judge that knows answers of SFT alone" in found.says
    judges["disjoint"]["can_tell"] = False
    check = next(c for c in shipping.checks(figures, ALIKE, GOAL, Limits()) if c.name == "cheaper ways")
    assert check.outcome == "not checked" and "only r and e compared, which cannot tell" in check.says


def test_what_a_cheaper_way_takes_is_said() -> None:
    over = {"sft": won(0.7, 0.8, 0.9), "few_shot": won(0.4, 0.5, 0.6), "another": won(0.4, 0.5, 0.6)}
    figures = metrics(over["sft"], win_rates_over=over, judge={"kind": "function", "name": "f", "can_tell": True})
    found = {c.name: c.says for c in shipping.checks(figures, ALIKE, GOAL, Limits())}
    assert "takes no training, but a much longer prompt at each request" in found["over base, few-shot"]
    assert "where that is as good" in found["over another"]


def test_too_few_prompts_decide_nothing_unless_people_judged() -> None:
    """Ten are needed for a claim; people's interval holds at every look, and so of few prompts."""
    few = won(0.62, 0.8, 0.9) | {"num_prompts": 9}
    check = next(c for c in shipping.checks(metrics(few), ALIKE, GOAL, Limits()) if c.name.startswith("win"))
    assert (check.outcome, check.num_needed) == ("undecided", 10)
    people = {"kind": "people", "name": "people", "trust": None, "can_tell": None}
    assert decided(metrics(few, judge=people)) == "SHIP"
