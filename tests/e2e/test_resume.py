"""A run killed half way goes on from its last whole checkpoint, and ends where the uninterrupted one does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import WORDS

from trueup.models.adapters import saved_tensors
from trueup.run.artifacts import write_json, write_jsonl
from trueup.run.pipeline import Pipeline

DPO = ("--set", "dpo.num_train_epochs=2", "--set", "dpo.save_steps=5", "--set", "dpo.gradient_accumulation_steps=1")
NUM_STEPS = 50  # 100 pairs, 4 a step, 2 epochs


def start(run_file: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", "from trueup.cli.main import main; main()", "dpo", str(run_file), *DPO]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def copy_of(pipeline: Pipeline, folder: Path, num_pairs: int = 100) -> Path:
    """The tiny run with collected pairs, in a folder of its own."""
    shutil.copytree(pipeline.folder.parent.parent, folder, ignore=shutil.ignore_patterns("round-1"))
    collected = folder / "runs" / "tiny" / "round-1" / "collect"
    collected.mkdir(parents=True)
    prompts = [[{"role": "user", "content": f"{a} {b}"}] for a in WORDS for b in WORDS]
    rows = [
        {"prompt_id": str(i), "split": "train", "prompt": p, "weight": 1.0, "chosen": WORDS[i % 5], "rejected": "no"}
        for i, p in enumerate(prompts[:num_pairs])
    ]
    write_jsonl(collected / "pairs.jsonl", rows)
    write_json(collected / "record.json", {"fingerprint": "collected"})
    return folder / "run.yaml"


@pytest.mark.slow  # test_goes_on.py stops DPO between two steps, and tests/faults kills SFT's process
def test_a_killed_dpo_resumes_and_equals_the_uninterrupted_one(pipeline: Pipeline, tmp_path: Path) -> None:
    whole, killed = copy_of(pipeline, tmp_path / "whole"), copy_of(pipeline, tmp_path / "killed")
    assert start(whole).wait(300) == 0
    process, began = start(killed), time.monotonic()
    checkpoints = killed.parent / "runs" / "tiny" / "round-1" / "dpo.partial" / "checkpoints"
    while not (checkpoints / "checkpoint-20" / "trueup-manifest.json").exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() - began < 120
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(int(path.name.rpartition("-")[2]) for path in checkpoints.glob("checkpoint-*"))
    assert last < NUM_STEPS
    assert start(killed).wait(300) == 0
    folders = [file.parent / "runs" / "tiny" / "round-1" / "dpo" for file in (whole, killed)]
    metrics = [json.loads((folder / "record.json").read_text())["metrics"] for folder in folders]
    assert metrics[0]["num_steps"] == metrics[1]["num_steps"] == NUM_STEPS
    assert metrics[0]["resumed_from_step"] == 0
    assert last - 5 <= metrics[1]["resumed_from_step"] <= last  # the newest may have been torn by the kill
    first, second = map(saved_tensors, folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
