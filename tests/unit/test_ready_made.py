"""Preferences the user already has: frozen by `collect` as votes from Label Studio are, without asking anybody."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.errors import DataError, StageError
from trueup.run.artifacts import Feedback
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}


def pipeline(folder: Path, rows: list[dict[str, Any]], text: str = "") -> Pipeline:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(
        f"name: x\ndata: {{preferences: p.jsonl}}\ncollect: {{held_out_fraction: 0}}\n{text}"
    )
    return Pipeline(load(folder / "run.yaml", SECTIONS), STAGES, folder / "runs")


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def frozen(run: Pipeline) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    assert run.execute("collect") is True
    feedback = Feedback(run.path("collect"))
    return feedback.pairs("train"), feedback.rows("train"), feedback.record()["metrics"]


def test_pairs_weigh_one_for_each_prompt_and_give_a_thumb_for_each_side(tmp_path: Path) -> None:
    run = pipeline(tmp_path, [pair("q", "a", "b"), pair("q", "c", "d"), pair("r", "a", "b"), pair("r", "same", "same")])
    pairs, rows, metrics = frozen(run)
    said = {(p["prompt"][0]["content"], p["chosen"], p["rejected"], p["weight"]) for p in pairs}
    assert said == {("q", "a", "b", 0.5), ("q", "c", "d", 0.5), ("r", "a", "b", 1.0)}  # and no pair a over d
    assert {(r["prompt"][0]["content"], r["completion"], r["label"]) for r in rows} == {
        *(("q", "a", True), ("q", "b", False), ("q", "c", True), ("q", "d", False)),
        *(("r", "a", True), ("r", "b", False)),
    }
    assert metrics["unusable_rows"] == {"chosen and rejected are the same": 1}


def test_three_annotators_count_as_three(tmp_path: Path) -> None:
    judged = {"instruction": "q", "response1": "a", "response2": "b", "annotator1": 2, "annotator2": 1, "annotator3": 2}
    pairs, rows, _ = frozen(pipeline(tmp_path, [judged]))
    assert [(p["chosen"], p["rejected"], p["weight"]) for p in pairs] == [
        ("b", "a", pytest.approx(1 / 3))
    ]  # two for, one against
    weights = {(r["completion"], r["label"]): r["weight"] for r in rows}
    assert weights == {("b", True): 2 / 3, ("b", False): 1 / 3, ("a", True): 1 / 3, ("a", False): 2 / 3}


def test_thumbs_of_one_prompt_are_paired(tmp_path: Path) -> None:
    thumbs = [{"prompt": "q", "completion": c, "label": up} for c, up in (("a", True), ("b", False), ("c", False))]
    pairs, rows, _ = frozen(pipeline(tmp_path, thumbs))
    said = {(p["chosen"], p["rejected"], p["weight"]) for p in pairs}
    assert said == {("a", "b", 0.5), ("a", "c", 0.5)}
    assert sorted((r["completion"], r["label"], r["weight"]) for r in rows) == [
        ("a", True, 1.0),
        ("b", False, 1.0),
        ("c", False, 1.0),
    ]


def test_prompts_are_held_out_whole(tmp_path: Path) -> None:
    rows = [pair(f"q{i % 10}", f"a{i}", f"b{i}") for i in range(40)]
    run = pipeline(tmp_path, rows)
    run = run.with_run(load(tmp_path / "run.yaml", SECTIONS, ("collect.held_out_fraction=0.2",)))
    assert run.execute("collect") is True
    feedback = Feedback(run.path("collect"))
    sides = [{p["prompt"][0]["content"] for p in feedback.pairs(split)} for split in ("train", "held_out")]
    assert (len(sides[0]), len(sides[1]), sides[0] & sides[1]) == (8, 2, set())


def test_with_preferences_nothing_is_sampled_unless_a_stage_needs_it(tmp_path: Path) -> None:
    names = [stage.name for stage in pipeline(tmp_path, []).order()]
    assert names == ["sft", "collect", "reward", "dpo", "evaluate", "export"]
    assert "sample" in [stage.name for stage in pipeline(tmp_path, [], "method: ppo\n").order()]
    (tmp_path / "run.yaml").write_text("name: x\n")
    run = Pipeline(load(tmp_path / "run.yaml", SECTIONS), STAGES, tmp_path / "runs")
    assert [stage.name for stage in run.order()][:3] == ["sft", "sample", "collect"]
    with pytest.raises(StageError, match="sample is not complete"):
        run.execute("collect")


def test_a_changed_file_weight_or_column_is_drift(tmp_path: Path) -> None:
    run = pipeline(tmp_path, [pair("q", "a", "b")])
    frozen(run)
    assert run.execute("collect") is False
    thinner = load(
        tmp_path / "run.yaml", SECTIONS, (f"data.preferences=[{{path: {tmp_path / 'p.jsonl'}, weight: 0.5}}]",)
    )
    for changed in (
        thinner,
        load(tmp_path / "run.yaml", SECTIONS, ("data.columns={prompt: question}",)),
        load(tmp_path / "run.yaml", SECTIONS, ("data.few_shot=[{prompt: a, response: b}]",)),
        load(tmp_path / "run.yaml", SECTIONS, ("data.system=Be kind.",)),
    ):
        with pytest.raises(StageError, match="since this was built"):
            run.with_run(changed).execute("collect")
    pipeline(tmp_path, [pair("q", "a", "c")])
    with pytest.raises(StageError, match=r"preferences .* since this was built"):
        run.execute("collect")


def test_a_broken_line_stops_the_stage_and_keeps_nothing(tmp_path: Path) -> None:
    run = pipeline(tmp_path, [pair("q", "a", "b")])
    with (tmp_path / "p.jsonl").open("a") as out:
        out.write("{\n")
    with pytest.raises(DataError, match="line 2: not JSON"):
        run.execute("collect")
    assert not run.path("collect").exists()


@pytest.mark.parametrize("field", ["rating", "rating_ann"])
def test_ratings_on_another_scale_are_refused(tmp_path: Path, field: str) -> None:
    rows = [{"prompt": "q", "completion": f"a{n}", field: n} for n in range(11)]
    with pytest.raises(DataError, match="not on a scale from 1 to 5"):
        pipeline(tmp_path, rows).execute("collect")
    assert frozen(pipeline(tmp_path, [*rows[1:6], rows[1] | {field: 2.5}]))[2]["unusable_rows"] == {
        "unknown verdict": 1
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--adjudicate"], "collect.adjudicate"),
        (["--set", "collect.overlap={share: 0.2, people: 3}"], "collect.overlap"),
        (
            ["--set", "collect.gold=g.jsonl", "--set", "collect.repeated_share=0.1"],
            "collect.gold, collect.repeated_share",
        ),
    ],
)
def test_nothing_of_a_file_is_asked_of_anybody(tmp_path: Path, options: list[str], named: str) -> None:
    run = pipeline(tmp_path, [pair("q", "a", "b")])
    done = CliRunner().invoke(main, ["collect", str(tmp_path / "run.yaml"), *options])
    assert (done.exit_code, "judgements of data.preferences" in done.output) == (2, True)
    assert f"{named}: " in done.output
    assert not run.path("collect").exists()


def test_a_frozen_line_that_is_no_judgement_is_named(tmp_path: Path) -> None:
    run = pipeline(tmp_path, [pair("q", "a", "b")])
    frozen(run)
    with (run.path("collect") / "annotations.jsonl").open("a") as out:
        out.write('{"kind": "weird"}\n')
    for words in (["advise"], ["labels", "report"], ["labels", "export", "--format", "jsonl", "--out", "o.jsonl"]):
        done = CliRunner().invoke(main, [*words, str(tmp_path / "run.yaml")])
        assert (done.exit_code != 0, "no judgement: kind is 'weird'" in done.output) == (True, True), done.output
