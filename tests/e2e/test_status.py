"""What `trueup status` says of a run: complete, stale and why, the goal, and what to type."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.run.artifacts import write_json
from trueup.run.pipeline import Pipeline


@pytest.fixture
def run_file(pipeline: Pipeline, tmp_path: Path) -> Path:
    shutil.copytree(pipeline.folder.parent.parent, tmp_path / "run", ignore=shutil.ignore_patterns("round-1"))
    return tmp_path / "run" / "run.yaml"


def said(code: int, *typed: str) -> str:
    result = CliRunner().invoke(main, list(typed))
    assert result.exit_code == code, result.output
    return result.output


def test_a_changed_value_is_stale_refused_by_name_and_rebuilt_on_demand(run_file: Path) -> None:
    assert f"next: trueup sample {run_file}\n" in said(0, "status", str(run_file))
    change = ("--set", "sft.num_train_epochs=1")
    status = said(0, "status", str(run_file), *change)
    assert "stale" in status
    assert "num_train_epochs 3.0 -> 1.0" in status
    assert f"next: trueup sft {run_file} --set sft.num_train_epochs=1 --rebuild" in status
    assert "num_train_epochs 3.0 -> 1.0 since this was built" in said(2, "sft", str(run_file), *change)
    said(0, "sft", str(run_file), *change, "--rebuild")
    folder = run_file.parent / "runs" / "tiny"
    new, old = (json.loads((folder / name / "record.json").read_text()) for name in ("sft", "sft.old-1"))
    assert (new["config"]["num_train_epochs"], old["config"]["num_train_epochs"]) == (1.0, 3.0)
    assert (new["overrides"], old["overrides"]) == (["sft.num_train_epochs=1"], [])


def test_what_failed_before_it_made_anything_is_missing_not_half_built(run_file: Path) -> None:
    said(2, "sample", str(run_file), "--set", "data.prompts=none.csv")
    assert "partial" not in said(0, "status", str(run_file))


@pytest.mark.parametrize(("low", "found"), [(0.5, "NOT met"), (0.7, "met")])
def test_the_goal_is_answered_by_the_lower_bound(run_file: Path, low: float, found: str) -> None:
    folder = run_file.parent / "runs" / "tiny" / "round-1" / "evaluate"
    folder.mkdir(parents=True)
    won = {"estimate": 0.8, "low": low, "high": 0.9, "num_prompts": 50}
    write_json(folder / "record.json", {"metrics": {"win_rate_by_reward_model": won, "kl_nats_per_token": 0.1}})
    output = said(0, "status", str(run_file), "--set", "goal.win_rate=0.6", "--set", "goal.kl=0.2")
    assert f"goal, win rate: 80.0% [{low:.1%}, 90.0%], wanted at least 60%: {found}\n" in output
    assert "goal, KL: 0.100 nats a token, wanted at most 0.2: met\n" in output
    assert f"report: {folder / 'report.html'}\n" in output
