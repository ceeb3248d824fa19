"""Training commands as scripts and people meet them: JSON in a pipe, quiet there; progress and no colours on demand."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from judged import judge, judged_pairs

from trueup.run.artifacts import read_jsonl
from trueup.run.pipeline import Pipeline

TRUEUP = [sys.executable, "-c", "from trueup.cli.main import main; main()"]
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


@pytest.fixture(scope="module")
def folder(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("commands") / "run"
    judge(pipeline, made, judged_pairs(), [])
    return made


def test_in_a_pipe_a_stage_is_quiet_and_its_figures_are_json(folder: Path) -> None:
    typed = [*TRUEUP, "dpo", "run.yaml", "--json", "--set", "data.held_out=gone.jsonl"]
    done = subprocess.run(typed, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stage = folder / "runs" / "tiny" / "round-1" / "dpo"
    record = json.loads((stage / "record.json").read_text())
    assert (found["stage"], found["built"], found["path"]) == ("dpo", True, str(stage))
    assert found["metrics"] == record["metrics"]
    assert found["next"] == "next: trueup reward run.yaml --set data.held_out=gone.jsonl"
    assert "\x1b" not in done.stderr and "━" not in done.stderr and "left" not in done.stderr
    assert "warning: data.held_out: " in done.stderr
    assert "dpo, sample " not in done.stderr  # sft has shown some, once for this run
    rows = list(read_jsonl(stage / "metrics.jsonl"))
    newest = max(stage.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]  # of transformers
    assert [row["loss"] for row in rows] == [row["loss"] for row in history if "loss" in row]
    assert len(rows) == record["metrics"]["num_steps"]
    page = (folder / "runs" / "tiny" / "curves.html").read_text()
    assert ">sft</h2>" in page and ">dpo, round 1</h2>" in page


def test_on_a_terminal_there_is_progress_with_time_left_and_no_color_means_none(folder: Path) -> None:
    seen = {}
    for name, extra in (("plain", {"NO_COLOR": "1"}), ("coloured", {})):
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        environment |= {"TERM": "xterm-256color", "COLUMNS": "120", **extra}
        main_end, other_end = pty.openpty()
        command = "reward" if name == "plain" else "status"
        process = subprocess.Popen(
            [*TRUEUP, command, "run.yaml"], cwd=folder, stdout=other_end, stderr=other_end, env=environment
        )
        os.close(other_end)
        said = b""
        try:
            while chunk := os.read(main_end, 4096):
                said += chunk
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0, said.decode()
        seen[name] = said.decode()
    assert re.search(r"reward +steps.* \d+/\d+ \d:\d\d:\d\d left \d:\d\d:\d\d", seen["plain"])
    assert not COLOUR.search(seen["plain"])
    assert COLOUR.search(seen["coloured"])
