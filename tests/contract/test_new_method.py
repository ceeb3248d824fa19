"""A method that trueup does not have is a module and one line in stages/__init__.py; nothing else knows its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import orpo
import pytest
from judged import judge, judged_pairs

from trueup.errors import ConfigError
from trueup.report import writing
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

AFTER = 1 + max(number for number, stage in enumerate(STAGES) if stage.alignment)
NEW = (*STAGES[:AFTER], orpo.STAGE, *STAGES[AFTER:])  # the one line, after those of the other methods
SECTIONS = {stage.name: stage.config for stage in NEW}


def opened(folder: Path, *overrides: str) -> Pipeline:
    return Pipeline(load(folder / "run.yaml", SECTIONS, overrides), NEW, folder / "runs", overrides)


@pytest.fixture(scope="module")
def folder(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("new") / "run"
    judge(pipeline, made, judged_pairs(), [])
    settings = "method: orpo\norpo: {learning_rate: 0.01, num_train_epochs: 4, trainer: {weight_decay: 0.01}}\n"
    (made / "run.yaml").write_text((made / "run.yaml").read_text() + settings)
    return made


def test_it_is_trained_judged_and_exported_as_any_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(folder)
    names = [stage.name for stage in run.order()]
    assert names == ["sft", "collect", "reward", "orpo", "evaluate", "export"]
    looked_at = dict(run.preflight())
    assert isinstance(looked_at["orpo"], dict) and looked_at["orpo"]["num_samples"] > 4
    for name in ("orpo", "reward", "evaluate", "export"):
        assert run.execute(name)
    made = run.artifact("orpo", "test").record()
    first, last = (sum(log["loss"] for log in part) for part in losses(run.path("orpo")))
    assert last < first
    assert made["metrics"]["preflight"]["num_dropped"] == 0 and (run.path("orpo") / "probe.safetensors").exists()
    judged = run.artifact("evaluate", "test").record()
    assert judged["inputs"]["aligned"] == made["fingerprint"]
    written = writing.write(run)
    assert not written.not_shown
    assert ">orpo, round 1</h3>" in written.page.read_text() and "it was aligned by orpo" in written.page.read_text()
    assert run.says("orpo")[0].startswith(f"{made['metrics']['num_pairs']} pairs trained")
    with pytest.raises(ConfigError, match=r"no argument of trl\.ORPOConfig"):
        opened(folder, "orpo.trainer={wieght: 1}")


def losses(stage: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """What the trainer logged of the first and of the last three steps."""
    newest = max(stage.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    logs = [log for log in json.loads((newest / "trainer_state.json").read_text())["log_history"] if "loss" in log]
    return logs[:3], logs[-3:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["orpo", "--help"], "odds ratio preference optimization"),
        (["plan", "run.yaml"], "orpo"),
        (["schema"], '"orpo"'),
        (["init", "new.yaml"], "wrote new.yaml"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_commands_know_it(folder: Path, arguments: list[str], said: str) -> None:
    code = (
        "import sys, orpo, trueup.stages\ntrueup.stages.STAGES += (orpo.STAGE,)\n"
        f"from trueup.cli.main import main\nmain({arguments!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(orpo.__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, said in done.stdout) == (0, True), done.stderr
    if arguments[0] == "init":
        assert "orpo" in (folder / "new.yaml").read_text()
