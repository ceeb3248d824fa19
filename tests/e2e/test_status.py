"""What `trueup status` says of a run, and what a stage refuses to build on: complete, stale and why, what to type."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from trueup.cli.main import main
from trueup.run.artifacts import read_jsonl, write_json, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.stages.sample import uids


@pytest.fixture
def run_file(pipeline: Pipeline, tmp_path: Path) -> Path:
    """A copy of the tiny run with its SFT adapter; the base beside the run file, by a relative name."""
    shutil.copytree(pipeline.folder.parent.parent, tmp_path / "run", ignore=shutil.ignore_patterns("round-1"))
    copy = tmp_path / "run" / "run.yaml"
    copy.write_text(copy.read_text().replace(str(pipeline.run.model.base), "model"))
    return copy


def said(code: int, *typed: str) -> str:
    result = CliRunner().invoke(main, list(typed), env={"COLUMNS": "200"})
    assert (result.exit_code, "Traceback" in result.output) == (code, False), result.output
    return result.output


def row(output: str, stage: str) -> str:
    """What the table says of a stage, without the borders."""
    return next(" ".join(line.split("│")[2:4]) for line in output.splitlines() if line.startswith(f"│ {stage} "))


def folder(run_file: Path, stage: str = "") -> Path:
    return run_file.parent / "runs" / "tiny" / stage


def test_a_changed_value_is_stale_refused_by_name_and_rebuilt_on_demand(run_file: Path) -> None:
    assert f"next: trueup sample {run_file}\n" in said(0, "status", str(run_file))
    change = ("--set", "sft.num_train_epochs=1")
    status = said(0, "status", str(run_file), *change)
    assert "sft.num_train_epochs 3.0 -> 1.0" in row(status, "sft")
    assert f"next: trueup sft {run_file} --set sft.num_train_epochs=1 --rebuild" in status
    refused = said(2, "sft", str(run_file), *change)
    assert "sft.num_train_epochs 3.0 -> 1.0 since this was built" in refused
    assert f"trueup sft {run_file} --set sft.num_train_epochs=1 --rebuild\n" in refused
    said(0, "sft", str(run_file), *change, "--rebuild")
    new, old = (json.loads((folder(run_file, name) / "record.json").read_text()) for name in ("sft", "sft.old-1"))
    assert (new["config"]["num_train_epochs"], old["config"]["num_train_epochs"]) == (1.0, 3.0)
    assert (new["overrides"], old["overrides"]) == (["sft.num_train_epochs=1"], [])


def test_long_values_are_shown_whole(run_file: Path) -> None:
    old, new = (
        "Be kind to everybody who writes to the shop. " * 4,
        "Be kind to everybody who writes to the shop. " * 4 + "!",
    )
    said(0, "sft", str(run_file), "--set", f"data.system={old}", "--rebuild")
    refused = said(2, "sft", str(run_file), "--set", f"data.system={new}")
    assert f"data.system from\n      {old.strip()}\n    to\n      {new}" in refused


def test_changed_demonstrations_stop_every_stage_after_them_unless_told_to_go_on(run_file: Path) -> None:
    said(0, "sample", str(run_file))
    folder(run_file, "round-1/collect").mkdir()
    rows = list(read_jsonl(run_file.parent / "d.jsonl"))
    write_jsonl(run_file.parent / "d.jsonl", rows[:38])
    status = said(0, "status", str(run_file))
    change = "the demonstrations file d.jsonl changed (40 lines -> 38)"
    assert change in row(status, "sft")
    assert "built on a stale sft" in row(status, "sample")
    write_json(folder(run_file, "round-1/collect") / "record.json", {"fingerprint": "collected"})
    assert "built on a stale sft" in row(said(0, "status", str(run_file)), "collect")  # by way of sample
    for typed in (("sample",), ("sample", "--rebuild")):
        refused = said(2, typed[0], str(run_file), *typed[1:])
        assert f"sample: it builds on a stale sft: {change}\n  next: trueup sft {run_file} --rebuild\n" in refused
        assert f"trueup sample {run_file} --use-stale" in refused
    assert "complete already" in said(0, "sample", str(run_file), "--use-stale")
    said(0, "sample", str(run_file), "--use-stale", "--rebuild")
    store = folder(run_file, "store")
    store.mkdir()
    write_jsonl(store / "annotations.jsonl", [{"uid": row["uid"]} for row in _sampled(run_file)])
    refused = said(2, "sample", str(run_file), "--use-stale", "--rebuild")
    assert f"next: to go on anyway: trueup sample {run_file} --rebuild --discard-labels --use-stale" in refused
    record = json.loads((folder(run_file, "round-1/sample") / "record.json").read_text())
    assert record["stale_inputs"] == {"sft, round 1": [change]}
    assert "built on a stale sft" in row(said(0, "status", str(run_file)), "sample")


def test_a_setting_of_an_earlier_stage_is_a_stale_input_of_a_later_one(run_file: Path) -> None:
    said(0, "sample", str(run_file))
    refused = said(2, "sample", str(run_file), "--set", "sft.learning_rate=1")
    assert "sample: it builds on a stale sft: sft.learning_rate 0.01 -> 1.0" in refused
    assert f"trueup sft {run_file} --set sft.learning_rate=1 --rebuild" in refused


def test_what_was_sampled_again_is_said_in_words(run_file: Path) -> None:
    said(0, "sample", str(run_file))
    collected = folder(run_file, "round-1/collect")
    collected.mkdir()
    write_json(collected / "record.json", {"inputs": {"completions": "0" * 64}})
    assert "the completions were sampled again" in row(said(0, "status", str(run_file)), "collect")


@pytest.mark.parametrize(
    "text", ["", "[]", "\ufeff", '{"metrics": ', '{"metrics": 3}', '{"inputs": []}', '{"version": 1, "data": {"d": 3}}']
)
def test_a_torn_record_is_said_with_the_command_that_builds_it_again(run_file: Path, text: str) -> None:
    (folder(run_file, "sft") / "record.json").write_text(text)
    status = said(0, "status", str(run_file))
    assert "broken" in row(status, "sft")
    assert f"next: trueup sft {run_file} --rebuild\n" in status
    for stage in ("sft", "sample"):
        refused = said(2, stage, str(run_file))
        assert "record.json holds no record: it is empty or torn" in refused
        assert f"trueup sft {run_file} --rebuild" in refused
    said(0, "sft", str(run_file), "--rebuild")
    assert "complete" in row(said(0, "status", str(run_file)), "sft")
    assert (folder(run_file, "sft.old-1") / "record.json").read_text() == text


def test_files_changed_by_hand_are_noticed(run_file: Path) -> None:
    said(0, "sample", str(run_file))
    completions = folder(run_file, "round-1/sample") / "completions.jsonl"
    completions.write_text(completions.read_text().replace("glad", "sad", 1) + "\n")
    assert "completions.jsonl was changed" in row(said(0, "status", str(run_file)), "sample")
    assert "completions.jsonl was changed since this was built" in said(2, "sample", str(run_file))
    completions.unlink()
    assert "completions.jsonl is missing" in said(2, "sample", str(run_file))


def test_a_stage_that_runs_is_said_to_run(run_file: Path) -> None:
    hold = (
        "import pathlib, sys, time; from trueup.run.lock import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1]), 'sample'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(folder(run_file))], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    status = said(0, "status", str(run_file))
    holder.kill()
    holder.wait()
    assert "running" in row(status, "sample")
    assert f"process {holder.pid}, since 20" in row(status, "sample")
    assert "next: wait for sample" in status
    assert "missing" in row(said(0, "status", str(run_file)), "sample")


def test_judged_completions_are_not_sampled_again_without_a_word(run_file: Path) -> None:
    said(0, "sample", str(run_file))
    rows = list(read_jsonl(folder(run_file, "round-1/sample") / "completions.jsonl"))
    store = folder(run_file, "store")
    store.mkdir()
    write_jsonl(store / "annotations.jsonl", [{"uid": r["uid"]} for r in (*rows[:5], *rows[:2])] + [{"uid": "other"}])
    hotter = ("sample", str(run_file), "--set", "sample.temperature=0.5")
    refused = said(2, *hotter, "--rebuild")
    assert "people have judged 5 of these completions" in refused
    assert f"trueup sample {run_file} --set sample.temperature=0.5 --rebuild --discard-labels" in refused
    assert not folder(run_file, "round-1/sample.old-1").exists()
    said(0, *hotter, "--rebuild", "--discard-labels")
    assert folder(run_file, "round-1/sample.old-1").exists()


def test_the_same_text_to_the_same_prompt_keeps_its_name(run_file: Path) -> None:
    said(0, "sample", str(run_file), "--set", "sample.temperature=0")
    before = {(r["prompt_id"], r["completion"], r["uid"]) for r in _sampled(run_file)}
    assert len(before) == 12  # two of each prompt, equal texts among them
    said(0, "sample", str(run_file), "--set", "sample.temperature=0", "--set", "sample.num_completions=3", "--rebuild")
    assert before < {(r["prompt_id"], r["completion"], r["uid"]) for r in _sampled(run_file)}
    one, other = ([("p", "yes"), ("p", "no"), ("q", "yes"), ("p", "yes")], [("p", "no"), ("p", "yes"), ("p", "yes")])
    names = dict(zip(one, uids(one), strict=True))
    assert len(set(uids(one))) == 4
    assert all(names[answer] in set(uids(other)) for answer in other)


def _sampled(run_file: Path) -> list[dict[str, object]]:
    return list(read_jsonl(folder(run_file, "round-1/sample") / "completions.jsonl"))


def test_overrides_a_stage_was_built_with_are_kept(run_file: Path) -> None:
    said(0, "sample", str(run_file), "--set", "sample.top_p=0.9")
    status = said(0, "status", str(run_file))
    assert "sample.top_p 0.9 -> 1.0" in row(status, "sample")
    assert "--set sample.top_p=0.9 was typed when this was built: write it into run.yaml, or keep typing it\n" in status
    assert f"next: trueup collect {run_file} --set sample.top_p=0.9\n" in status
    assert "sample.top_p=0.9" in said(2, "sample", str(run_file))


def test_the_next_command_keeps_round_and_overrides_quoted(run_file: Path) -> None:
    typed = ("--set", "data.system=Be kind", "--set", "round=2")
    said(0, "sft", str(run_file), *typed, "--rebuild")
    assert f"next: trueup sample {run_file} --set 'data.system=Be kind' --set round=2\n" in said(
        0, "status", str(run_file), *typed
    )


def test_another_base_under_the_same_name_is_noticed_by_every_stage_on_it(run_file: Path) -> None:
    said(0, "sample", str(run_file))
    file = run_file.parent / "model" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor + torch.ones_like(tensor) for name, tensor in tensors.items()}, file, {"format": "pt"})
    status = said(0, "status", str(run_file))
    change = "the base model has other contents: model.safetensors was changed"
    assert change in row(status, "sft")
    assert change in row(status, "sample")
    assert change in said(2, "sample", str(run_file))


def test_a_moved_project_is_the_same_project(run_file: Path, tmp_path: Path) -> None:
    said(0, "sample", str(run_file))
    moved = tmp_path / "elsewhere" / "deeper"
    moved.parent.mkdir()
    run_file.parent.rename(moved)
    status = said(0, "status", str(moved / "run.yaml"))
    assert "complete" in row(status, "sft")
    assert "complete" in row(status, "sample")
    assert "complete already" in said(0, "sample", str(moved / "run.yaml"))


def test_a_base_that_is_not_there_is_said_and_asks_nobody_to_build_again(run_file: Path) -> None:
    (run_file.parent / "model").rename(run_file.parent / "away")
    status = said(0, "status", str(run_file))
    assert "complete" in row(status, "sft")
    assert f"model.base: {run_file.parent / 'model'}: no such folder" in status
    assert "--rebuild" not in status
    assert "next: correct model.base in the run file" in said(2, "sample", str(run_file))


def test_a_relative_base_is_looked_for_beside_the_run_file(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = run_file.parent / "models"
    models.mkdir()
    (run_file.parent / "model").rename(models / "tiny")
    monkeypatch.chdir(tmp_path)  # which has neither
    assert "complete already" in said(0, "sft", str(run_file), "--set", "model.base=models/tiny")
    for wrong in ("models/tinny", "tiny", "./tiny", "a/b/c"):
        refused = said(2, "sft", str(run_file), "--set", f"model.base={wrong}")
        assert f"model.base: {run_file.parent / wrong}: no such folder" in refused
        assert "beside the run file" in refused
        assert "no such folder" in said(0, "status", str(run_file), "--set", f"model.base={wrong}")
    assert "has no revisions" in said(2, "sft", str(run_file), "--set", "model.revision=main")


def test_an_evaluation_of_another_method_is_not_shown_under_this_one(run_file: Path) -> None:
    for stage, record in (
        ("dpo", {"fingerprint": "d" * 40}),
        ("kto", {"fingerprint": "k" * 40}),
        ("evaluate", {"inputs": {"aligned": "d" * 40}, "metrics": WON}),
    ):
        folder(run_file, f"round-1/{stage}").mkdir(parents=True)
        write_json(folder(run_file, f"round-1/{stage}") / "record.json", record)
    assert "The aligned model is" in said(0, "status", str(run_file))
    status = said(0, "status", str(run_file), "--set", "method=kto")
    assert "it was made from dpo, and the run file's method is kto" in row(status, "evaluate")
    assert "The aligned model is" not in status


def test_what_failed_before_it_made_anything_is_missing_not_half_built(run_file: Path) -> None:
    said(2, "sample", str(run_file), "--set", "data.prompts=none.csv")
    assert "partial" not in said(0, "status", str(run_file))


def test_a_stage_ends_with_its_figures_and_says_where_data_are_few(run_file: Path) -> None:
    output = said(0, "sample", str(run_file))
    assert "12 completions" in output
    assert "were cut at sample.max_new_tokens" in output
    assert "warning: 6 prompts to judge answers to are few; docs/choosing.md asks for 150 or more" in output
    output = said(0, "sft", str(run_file))
    assert "36 demonstrations trained" in output
    assert "warning: 36 demonstrations are few; docs/choosing.md asks for 100 or more" in output


WON = {
    "win_rate_by_reward_model": {"estimate": 0.8, "low": 0.5, "high": 0.9, "num_prompts": 50},
    "kl_nats_per_token": 0.1,
}


@pytest.mark.parametrize(("low", "found"), [(0.5, "NOT met"), (0.7, "met")])
def test_the_goal_is_answered_by_the_lower_bound(run_file: Path, low: float, found: str) -> None:
    evaluated = folder(run_file, "round-1/evaluate")
    evaluated.mkdir(parents=True)
    won = WON["win_rate_by_reward_model"] | {"low": low}  # type: ignore[operator]
    write_json(evaluated / "record.json", {"metrics": WON | {"win_rate_by_reward_model": won}})
    output = said(0, "status", str(run_file), "--set", "goal.win_rate=0.6", "--set", "goal.kl=0.2")
    found_line = (
        f"goal, win rate: lower end {low:.1%} (estimate 80.0%, upper end 90.0%), wanted at least 60%: {found}\n"
    )
    assert found_line in output
    assert "goal, KL: 0.100 nats per token, wanted at most 0.2: met\n" in output
