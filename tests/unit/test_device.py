"""One GPU of several is used; one message of bitsandbytes is dropped, and no other."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trueup.models import device
from trueup.models.quiet import ADVICE, drop_kernel_advice

# two GPUs that are not there: what TrainingArguments asks torch about them
TWO_GPUS = """
import os, sys, torch
from pathlib import Path
from trl import SFTConfig
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(","))
torch.cuda.get_device_capability = lambda *_: (7, 5)
torch.cuda.set_device = lambda *_: None
from trueup.run.run_file import load
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import common
folder = Path(sys.argv[1])
(folder / "run.yaml").write_text("name: x")
run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
print("n_gpu", SFTConfig(**common.trainer_args(Context(run=run, run_dir=folder, out=folder))).n_gpu)
"""


def test_with_two_gpus_the_trainer_sees_one(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != device.VISIBLE}
    done = subprocess.run(
        [sys.executable, "-c", TWO_GPUS, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["n_gpu", "1"], done.stderr


@pytest.mark.parametrize(
    ("before", "after"), [(None, "0"), ("3,1", "3"), ("2", "2"), ("", ""), ("GPU-a,GPU-b", "GPU-a")]
)
def test_the_first_gpu_that_the_user_allows_is_used(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.delenv(device.VISIBLE, raising=False)
    if before is not None:
        monkeypatch.setenv(device.VISIBLE, before)
    device.use_one_gpu()
    assert os.environ[device.VISIBLE] == after


def test_one_message_of_bitsandbytes_is_dropped_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    drop_kernel_advice()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("%s from kernels-community: %s", ADVICE, "No module named 'kernels'")
    logger.warning("another warning")
    logging.getLogger("bitsandbytes").warning("a third")
    assert caplog.messages == ["another warning", "a third"]


def test_a_command_prints_nothing_of_bitsandbytes(tmp_path: Path) -> None:
    code = "from trueup.models.quiet import drop_kernel_advice; drop_kernel_advice(); import bitsandbytes"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
