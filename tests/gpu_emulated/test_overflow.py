"""What leaves the range of fp16 stops the stage that trains, and the message says what to set."""

from __future__ import annotations

import math
from pathlib import Path

import emulated
import pytest

pytestmark = emulated.needs_compiler

CURE = "next: set model.dtype: float32 in the run file, and run the same command again"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("everywhere", "sft: the loss at step 1 is nan, computed"),
        ("held out", "sft: the held-out loss after step"),
        ("nowhere", "sft: the gradient overflows at step 17, however"),
    ],
)
def test_a_loss_that_overflows_stops_the_stage(tmp_path: Path, where: str, said: str) -> None:
    message = emulated.run("overflow.py", folder=str(tmp_path), where=where, dtype="auto")["message"]
    assert message.startswith(said) and CURE in message


def test_in_fp32_the_same_model_trains(tmp_path: Path) -> None:
    metrics = emulated.run("overflow.py", folder=str(tmp_path), where="everywhere", dtype="float32")["metrics"]
    assert math.isfinite(metrics["train_loss"]) and math.isfinite(metrics["eval_loss"])
