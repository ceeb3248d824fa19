"""`trueup init`: three questions or flags, and a run file that loads and is planned to fit."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trueup.cli.main import main
from trueup.planning import devices, table
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and no copies of its models: shapes come from our table."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def init(*words: str) -> Result:
    return CliRunner().invoke(main, ["init", *words])


@pytest.mark.parametrize("device", ["t4", "24gb", "80gb"])
@pytest.mark.parametrize(
    "base", ["Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-3B-Instruct", "HuggingFaceH4/zephyr-7b-beta"]
)
@pytest.mark.parametrize(("feedback", "method"), [("thumbs", "kto"), ("preferences", "dpo"), ("function", "grpo")])
def test_what_it_writes_loads_and_fits(tmp_path: Path, base: str, device: str, feedback: str, method: str) -> None:
    made = init("run.yaml", "--base", base, "--device", device, "--feedback", feedback, "--method", method)
    assert (made.exit_code, "predicted to fit" in made.output) == (0, True), made.output
    run = load(tmp_path / "run.yaml", SECTIONS)
    assert (run.model.base, run.method) == (base, method)
    names = [stage.name for stage in Pipeline(run, STAGES, tmp_path).order()]
    wanted = {
        "thumbs": ["sft", "sample", "collect", "reward", "kto", "evaluate", "export"],
        "preferences": ["sft", "collect", "reward", "dpo", "evaluate", "export"],
        "function": ["sft", "sample", "grpo", "evaluate", "export"],
    }
    assert names == wanted[feedback]
    chosen = devices.find(device)
    assert table.verdict(table.make(Pipeline(run, STAGES, tmp_path), chosen), chosen) == [f"fits in {chosen.size}: yes"]


def test_a_batch_made_smaller_is_accumulated(tmp_path: Path) -> None:
    init("run.yaml", "--base", "Qwen/Qwen2.5-7B-Instruct", "--device", "t4")
    sft = load(tmp_path / "run.yaml", SECTIONS).section("sft").model_dump()
    assert sft["per_device_train_batch_size"] < 8
    assert sft["per_device_train_batch_size"] * sft["gradient_accumulation_steps"] == 16  # as in configs/


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "gpt2"], "no such folder"),
        (["--feedback", "function", "--method", "dpo"], "expected: one of ppo, grpo"),
        (["--device", "toaster"], "unknown device"),
        (["--method", "dqo"], "'dqo' is not one of"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, words: list[str], said: str) -> None:
    made = init("new/run.yaml", *words)
    assert (made.exit_code, said in made.output) == (2, True), made.output
    assert not (tmp_path / "new").exists()


def test_a_base_that_nobody_knows_the_size_of_is_written_and_said(tmp_path: Path) -> None:
    made = init("my.yaml", "--base", "some/model: 7B")
    assert made.exit_code == 2  # no name for a model
    made = init("my.yaml", "--base", "some/model-7B")
    assert (made.exit_code, "whether it fits is not known" in made.output) == (0, True)
    assert "later: trueup plan my.yaml" in made.output
    assert load(tmp_path / "my.yaml", SECTIONS).model.base == "some/model-7B"


def test_a_folder_is_a_base_and_a_name_that_yaml_would_misread_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "12: #3"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"{}      ")
    made = init("run.yaml", "--base", "12: #3")
    assert made.exit_code == 0, made.output
    assert load(tmp_path / "run.yaml", SECTIONS).model.base == str(folder)


def test_on_a_terminal_it_asks_three_questions(tmp_path: Path) -> None:
    main_end, other_end = pty.openpty()
    code = "from trueup.cli.main import main; main(['init', 'run.yaml', '--device', 't4'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=other_end, stdout=other_end, stderr=other_end, cwd=tmp_path
    )
    os.close(other_end)
    answers = {
        b"Base model": b"gpt2\n",
        b"gpt2: no such folder": b"\n",
        b"What people give": b"functoin\n",
        b"is not one of": b"function\n",
        b"How to align": b"\n",
    }
    seen, began = b"", time.monotonic()
    while process.poll() is None and time.monotonic() - began < 60:
        if select.select([main_end], [], [], 0.1)[0]:
            try:
                seen += os.read(main_end, 4096)
            except OSError:  # the other end is closed
                break
        for question in [q for q in answers if q in seen]:
            os.write(main_end, answers.pop(question))
    assert process.wait(timeout=30) == 0, seen.decode()
    run = load(tmp_path / "run.yaml", SECTIONS)
    assert (run.model.base, run.method) == ("Qwen/Qwen2.5-1.5B-Instruct", "ppo")  # what fits a T4; the first of two
    assert run.section("ppo").model_dump()["reward_functions"] == {"rewards:score": 1.0}
    assert answers == {}
