"""Advice from counts alone: sample sizes of textbooks, and rules whose every side is met by a small run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scipy.stats import binom, norm

from trueup.cli.main import main
from trueup.feedback.advice import advise
from trueup.feedback.facts import Facts, facts_of
from trueup.feedback.judgement import Comparison, Judgement, Thumb
from trueup.sample_size import to_know, to_show


def test_sample_sizes_of_textbooks() -> None:
    """0.6 against 0.5 at 5 % and 80 % power takes 194; a share to 5 points takes 385, to 10 points 97."""
    assert to_show(0.6, 0.5) == 194
    assert (to_know(0.05), to_know(0.1)) == (385, 97)
    with pytest.raises(ValueError, match="expected 0 < above < rate < 1"):
        to_show(0.5, 0.5)


@pytest.mark.parametrize(("rate", "above"), [(0.6, 0.5), (0.7, 0.6), (0.8, 0.6), (0.65, 0.6)])
def test_the_power_is_that_of_the_exact_test(rate: float, above: float) -> None:
    """Of the binomial distribution: the chance that the test at 2.5 % a side rejects `above` where `rate` is true."""
    n = to_show(rate, above)
    critical = math.ceil(n * above + norm.ppf(0.975) * math.sqrt(n * above * (1 - above)))
    assert binom.sf(critical - 1, n, rate) == pytest.approx(0.8, abs=0.04)


def facts(**changed: Any) -> Facts:
    share = {"estimate": 0.5, "low": 0.45, "high": 0.55, "num": 400}
    usual: dict[str, Any] = {
        "num_judgements": {"thumb": 400},
        "num_prompts": 200,
        "num_prompts_with_pairs": 160,
        "num_pairs": 160,
        "num_in_pairs": 320,
        "num_in_rows": 400,
        "num_people": 3,
        "share_up": share,
        "alpha": {"estimate": 0.9, "low": 0.85, "high": 0.95},
        "num_compared": 100,
        "seconds": {"thumb": 6.0},
        "weight_by_kind": {"thumb": 120.0},
    }
    return Facts(**usual | changed)


def value(about: str, **changed: Any) -> Any:
    return {one.about: one.value for one in advise(facts(**changed))}[about]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "dpo"),
        ({"num_in_pairs": 199}, "kto"),
        ({"num_in_pairs": 200}, "dpo"),
        ({"num_in_pairs": 0, "num_in_rows": 0, "num_pairs": 0, "share_up": None}, "label more"),
        ({"num_pairs": 0, "num_in_pairs": 0, "share_up": {"estimate": 1.0, "low": 0.99, "high": 1.0}}, "label more"),
        ({"num_pairs": 0, "num_in_pairs": 0}, "kto"),
        ({"num_judgements": {"comparison": 400}, "num_in_rows": 0, "share_up": None, "seconds": {}}, "dpo"),
    ],
)
def test_the_method_that_learns_from_most_of_the_judgements(changed: dict[str, Any], expected: str) -> None:
    assert value("method", **changed) == expected


def test_the_other_rules_on_either_side() -> None:
    def says(about: str, **changed: Any) -> str:
        return next((one.says for one in advise(facts(**changed)) if one.about == about), "")

    assert says("prompt") == ""
    assert "system prompt" in says("prompt", share_up={"estimate": 0.9, "low": 0.85, "high": 0.93})
    assert "system prompt" in says("prompt", num_prompts=149)
    interval = {"estimate": 0.6, "low": 0.5, "high": 0.7}
    assert [value("reward", reward=r) for r in (None, interval, interval | {"low": 0.51})] == [None, False, True]
    assert value("agreement") is True
    assert value("agreement", alpha={"estimate": 0.3, "low": 0.2, "high": 0.4}) is False
    assert "3 things more" in says("agreement", num_compared=94)
    assert "same verdict" in says("agreement", alpha=None)


def test_more_labels_for_more_prompts_with_pairs_by_hand() -> None:
    """50 of 100 prompts gave pairs, from 300 judgements: 100 more with pairs take 200 prompts and 600 judgements."""
    some = {"num_prompts": 100, "num_prompts_with_pairs": 50, "num_judgements": {"thumb": 300}}
    (one,) = [one for one in advise(facts(**some)) if one.about == "labels"]
    assert one.value == 600
    assert "50 of 100, and take 3.0 judgements each" in one.because
    assert "How many labels" not in one.says
    assert value("labels", **some | {"num_prompts_with_pairs": 0}) is None
    assert value("labels") == 0


def test_a_goal_needs_held_out_prompts_and_the_assumption_is_said() -> None:
    (one,) = [one for one in advise(facts(wanted=0.5, num_held_out=30)) if one.about == "goal"]
    assert one.value == 194
    assert "There are 30." in one.says
    assert "the true win rate is 60%" in one.because
    win = {"estimate": 0.7, "low": 0.6, "high": 0.8}
    (one,) = [one for one in advise(facts(wanted=0.5, win=win)) if one.about == "goal"]
    assert one.value == to_show(0.7, 0.5) == 47
    assert not any(one.about == "goal" for one in advise(facts()))


def test_minutes_are_the_median_times_the_number() -> None:
    """400 thumbs of 6 s are 40 minutes: 120 agreed pairs are 3 a minute, 20 points of win rate half a point."""
    assert value("minutes.thumb") == pytest.approx(3.0)
    assert value("minutes.win", win={"estimate": 0.7, "low": 0.6, "high": 0.8}) == pytest.approx(0.5)
    assert value("minutes.win") is None
    untimed = {"num_judgements": {"thumb": 400, "edit": 1}}
    assert value("minutes.win", win={"estimate": 0.7, "low": 0.6, "high": 0.8}, **untimed) is None


def test_facts_are_counted_from_judgements() -> None:
    texts = {"p1": "a", "p2": "b", "q1": "c", "q2": "d"}
    rows = [{"uid": u, "prompt_id": u[0], "messages": [], "completion": t} for u, t in texts.items()]
    common: dict[str, Any] = {"annotation_id": 1, "lead_time": 3.0}
    thumbs = (("p1", True), ("p2", False), ("q1", True), ("q2", True))
    said: list[Judgement] = [Thumb(uid=uid, annotator="1", up=up, **common) for uid, up in thumbs]
    said.append(Comparison(uid="q1 q2", annotator="2", a="q1", b="q2", preferred="a", **common | {"lead_time": 9.0}))
    found = facts_of(said, rows)
    assert (found.num_judgements, found.num_prompts, found.num_prompts_with_pairs) == (
        {"comparison": 1, "thumb": 4},
        2,
        2,
    )
    assert (found.num_in_pairs, found.num_in_rows, found.num_people) == (3, 4, 2)
    assert found.seconds == {"comparison": 9.0, "thumb": 3.0}
    assert found.weight_by_kind == {"comparison": 1.0, "thumb": 1.0}
    assert found.minutes == {"comparison": pytest.approx(0.15), "thumb": pytest.approx(0.2)}


def test_the_command_prints_80_columns_and_one_document(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n // 2}", "completion": f"a{n}", "label": n % 2} for n in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run.yaml"
    run.write_text("name: x\nmodel: {base: nowhere}\ndata: {preferences: d.jsonl}\ngoal: {win_rate: 0.6}\n")
    early = CliRunner().invoke(main, ["advise", str(run)])
    assert early.exit_code == 2
    assert f"trueup collect {run}" in early.output
    assert CliRunner().invoke(main, ["collect", str(run)]).exit_code == 0
    done = CliRunner().invoke(main, ["advise", str(run)])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert "DPO fits" in done.output
    found = json.loads(CliRunner().invoke(main, ["advise", str(run), "--json"]).stdout)
    assert found["facts"]["num_prompts_with_pairs"] == 20
    assert found["advice"][0]["value"] == "dpo"
