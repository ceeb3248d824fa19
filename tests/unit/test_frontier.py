"""Over-optimization over checkpoints: the rule on written-out figures, what is said, and what `ship` makes of it."""

from __future__ import annotations

import csv
import html
from pathlib import Path
from typing import Any

import pytest
from reported import built, opened

from trueup.evaluation import contestants, frontier, shipping
from trueup.evaluation.regressions import Limits
from trueup.report import checkpoints, writing

JUDGE = "a judge of its own"


def won(estimate: float, half: float = 0.1) -> dict[str, Any]:
    low, high = max(0.0, estimate - half), min(1.0, estimate + half)
    even = {"estimate": estimate, "low": low, "high": high}
    return {**even, "num_prompts": 80, "ties": 0.0, "length_controlled": even}


def figures(
    steps: dict[int, tuple[float, float, float, float]],
    end: tuple[float, float, float],
    kind: str = "disjoint",
    can_tell: bool | None = True,
) -> dict[str, Any]:
    """Those of an evaluation. Of each step: KL, over SFT by the judge and by the reward, the aligned model over it.

    Of the aligned model at the `end`: KL, and over SFT by both.
    """
    answered = {"mean_length_tokens": 30.0, "eos_rate": 1.0, "prompt_tokens": 20.0, "sampled_tokens": 30.0}
    labels = {f"step_{step}": values for step, values in steps.items()}
    judged = {
        "name": JUDGE,
        "win_rates_over": {"sft": won(end[1])} | {label: won(found[3]) for label, found in labels.items()},
        "win_rates_over_sft": {"aligned": won(end[1])} | {label: won(found[1]) for label, found in labels.items()},
        "can_tell": can_tell,
        "trust": None,
    }
    optimized = {
        "name": "the reward",
        "win_rates_over": {"sft": won(end[2])} | {label: won(1 - found[2]) for label, found in labels.items()},
        "win_rates_over_sft": {"aligned": won(end[2])} | {label: won(found[2]) for label, found in labels.items()},
        "can_tell": True,
        "trust": None,
    }
    judges = {"optimized": optimized} | ({} if kind == "optimized" else {kind: judged})
    return {
        **{label: answered | {"kl_nats_per_token": found[0]} for label, found in labels.items()},
        **{"sft": answered, "aligned": answered, "kl_nats_per_token": end[0]},
        "judge": {"kind": kind, "name": JUDGE, "can_tell": can_tell, "trust": None},
        "judges": judges,
        "win_rate": won(end[1]),
        "win_rates_over": judges[kind]["win_rates_over"],
    }


# The judge likes step 10 best (70 % over SFT) and prefers it to the aligned model, 65 % to 35 %; the reward rises on.
TURNED = figures({5: (0.05, 0.6, 0.6, 0.5), 10: (0.1, 0.7, 0.7, 0.35), 20: (0.2, 0.6, 0.8, 0.45)}, (0.4, 0.55, 0.9))


def test_the_knee_is_the_best_checkpoint_where_the_aligned_model_loses_to_it_and_the_reward_rises() -> None:
    found = frontier.knee(TURNED)
    assert found is not None and (found.label, found.kl) == ("step_10", 0.1)
    said = " ".join(frontier.says(TURNED))
    assert "0.050 at step 5, 0.100 at step 10, 0.200 at step 20, 0.400 at the end" in said
    assert (
        "over-optimized from step 10 (KL 0.100 nats per token) on: it wins 35.0% (95% interval 25.0% to 45.0%)" in said
    )
    assert f"judged by {JUDGE}" in said and "rises from 70.0% to 90.0% by the reward" in said
    (advice,) = frontier.gentler(TURNED, "dpo", {"beta": 0.1, "num_train_epochs": 2.0})
    assert "trueup dpo RUN.yaml --as beta-0.2 --set dpo.beta=0.2" in advice and "(dpo.num_train_epochs)" in advice
    (advice,) = frontier.gentler(TURNED, "ppo", {"kl_coef": 0.0, "num_steps": 60})
    assert "--set ppo.kl_coef=0.05" in advice


@pytest.mark.parametrize(
    ("steps", "end", "why"),
    [
        ({10: (0.1, 0.7, 0.7, 0.41)}, (0.4, 0.6, 0.9), "the interval reaches 50 %: 31 to 51 %"),
        ({10: (0.1, 0.7, 0.9, 0.35)}, (0.4, 0.55, 0.85), "the reward falls as well"),
        ({10: (0.1, 0.7, 0.9, 0.35)}, (0.4, 0.55, 0.9), "the reward does not rise"),
        ({10: (0.4, 0.7, 0.7, 0.35)}, (0.1, 0.55, 0.9), "the aligned model is nearer to SFT"),
        ({10: (0.1, 0.7, 0.7, 0.48), 20: (0.2, 0.65, 0.8, 0.35)}, (0.4, 0.6, 0.9), "it does not lose to the best"),
    ],
)
def test_no_knee(
    steps: dict[int, tuple[float, float, float, float]], end: tuple[float, float, float], why: str
) -> None:
    found = figures(steps, end)
    assert frontier.knee(found) is None, why
    assert any(line.startswith("No over-optimization is shown: ") for line in frontier.says(found))
    assert frontier.gentler(found, "dpo", {"beta": 0.1}) == []


@pytest.mark.parametrize(("kind", "can_tell"), [("disjoint", False), ("optimized", True)])
def test_who_cannot_tell_claims_nothing(kind: str, can_tell: bool) -> None:
    found = figures({10: (0.1, 0.7, 0.7, 0.35)}, (0.4, 0.55, 0.9), kind, can_tell)
    if kind == "optimized":  # with a knee by its own word
        found["judges"]["optimized"]["win_rates_over"]["step_10"] = won(0.2)
    assert frontier.knee(found) is None
    assert "not known: no judge that can tell" in frontier.says(found)[-1]
    assert _check(found).outcome == "not checked"


def test_too_few_prompts_claim_nothing() -> None:
    found = figures({10: (0.1, 0.7, 0.7, 0.35)}, (0.4, 0.55, 0.9))
    found["judges"]["disjoint"]["win_rates_over"]["step_10"]["num_prompts"] = 9
    assert frontier.knee(found) is None
    assert (_check(found).outcome, _check(found).num_needed) == ("undecided", 10)


def test_where_people_gave_the_verdict_another_judge_compared_the_checkpoints() -> None:
    found = figures({10: (0.1, 0.7, 0.7, 0.35)}, (0.4, 0.55, 0.9))
    people = {"name": "people", "win_rates_over": {"sft": won(0.6)}, "win_rates_over_sft": {"aligned": won(0.6)}}
    found["judges"]["people"] = people | {"can_tell": None, "trust": None}
    found["judge"] = {"kind": "people", "name": "people", "can_tell": None, "trust": None}
    turned = frontier.knee(found)
    assert turned is not None and turned.label == "step_10"
    assert f"judged by {JUDGE}" in frontier.says(found)[-1] and f"by {JUDGE}" in _check(found).says


def test_a_judge_that_was_asked_about_the_aligned_model_alone_names_the_step_it_loses_most_to() -> None:
    """An endpoint compares nobody else with SFT."""
    found = figures({5: (0.05, 0.0, 0.6, 0.5), 10: (0.1, 0.0, 0.7, 0.35)}, (0.4, 0.55, 0.9), "endpoint")
    found["judges"]["endpoint"]["win_rates_over_sft"] = {"aligned": won(0.55)}
    turned = frontier.knee(found)
    assert turned is not None and turned.label == "step_10" and turned.judged is None


def test_an_evaluation_without_checkpoints_says_nothing() -> None:
    found = figures({}, (0.4, 0.55, 0.9))
    assert frontier.says(found) == [] and frontier.knee(found) is None and frontier.points({}) == []
    assert _check(found).outcome == "not checked" and "evaluate.checkpoints" in _check(found).says


def _check(found: dict[str, Any]) -> Any:
    checks = shipping.checks(found, [], {"win_rate": None, "kl": None}, Limits())
    return next(check for check in checks if check.name == "over its own checkpoints")


def test_a_better_step_is_a_reason_not_to_ship() -> None:
    """By the judge alone: whether the reward rises is nothing to whom gets the model."""
    check = _check(TURNED)
    assert check.outcome == "failed" and "35.0% (25.0% to 45.0%, 80 prompts) over step 10: that is better" in check.says
    good = figures({5: (0.05, 0.6, 0.6, 0.55), 10: (0.1, 0.6, 0.9, 0.42)}, (0.4, 0.62, 0.8))
    assert _check(good).outcome == "passed" and "no step of 2 is shown to be better" in _check(good).says
    names = {check.name for check in shipping.checks(good, [], {"win_rate": None, "kl": None}, Limits())}
    assert not any("step" in name for name in names) and "cheaper ways" in names


def test_the_report_draws_both_lines_by_step_and_marks_the_knee(tmp_path: Path) -> None:
    drawn = checkpoints.figure(frontier.points(TURNED), frontier.knee(TURNED)).axes[0]
    lines = {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in drawn.lines}
    assert lines["judge"] == [(0, 0.5), (0.05, 0.6), (0.1, 0.7), (0.2, 0.6), (0.4, 0.55)]
    assert lines["optimized"] == [(0, 0.5), (0.05, 0.6), (0.1, 0.7), (0.2, 0.8), (0.4, 0.9)]
    assert lines["knee"] == [(0.1, 0.7)]
    assert [text.get_text() for text in drawn.texts] == ["5", "10", "20", "end", "step"]
    assert [text.xy[0] for text in drawn.texts] == [0.05, 0.1, 0.2, 0.4, 0]  # type: ignore[attr-defined]
    run = opened(tmp_path)
    built(run, "round-1/dpo@a", {}, config={"beta": 0.3})
    answers = {"answers.jsonl": [{"prompt_id": "a", "messages": [{"content": "q"}], "sft": "s", "aligned": "t"}]}
    for judge in TURNED["judges"].values():
        judge |= {"num_without_answer": {}, "notes": {}}
    built(run, "round-1/evaluate@a", TURNED, answers, inputs={"aligned": "round-1/dpo@a"})
    written = writing.write(run, "my.yaml")
    assert not written.not_shown
    text = html.unescape(written.page.read_text()).replace("\u00a0", " ")
    assert "The ring marks the knee, step 10: from there on the aligned model is over-optimized." in text
    assert "dpo@a, round 1: KL from SFT along training" in text and "over-optimized from step 10 (KL 0.100 nats" in text
    assert "trueup dpo my.yaml --as beta-0.6 --set dpo.beta=0.6" in text
    rows = list(csv.DictReader(written.tables[0].open()))
    found = {row["over"]: float(row["kl_from_sft_nats_per_token_of_other"]) for row in rows}
    assert found == {"sft": 0.0, "step_5": 0.05, "step_10": 0.1, "step_20": 0.2}


def test_steps_are_contestants_after_the_others_and_bear_their_steps() -> None:
    assert list(contestants.names(TURNED).items())[2:] == [(f"step_{n}", f"step {n}") for n in (5, 10, 20)]
    assert frontier.labels({"step_5": {}, "step_x": {"kl_nats_per_token": 1}}) == []
