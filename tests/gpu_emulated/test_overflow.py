"""What leaves the range of fp16 stops the stage that trains, and the message says what to set."""

from __future__ import annotations

import math
from typing import Any

import emulated
import pytest

pytestmark = emulated.needs_compiler

CURE = "next: set model.dtype: float32 in the run file, and run the same command again"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = emulated.run("overflow.py", folder=str(tmp_path_factory.mktemp("overflow")))
    return found


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("everywhere", "sft: the loss at step 1 is nan, computed in fp16"),
        ("in what is held out", "sft: the held-out loss after step"),
        ("in a gradient", "sft: the gradient overflows at step 17, however small the loss is scaled"),
    ],
)
def test_what_overflows_stops_the_stage(outcomes: dict[str, Any], case: str, said: str) -> None:
    assert outcomes[case].startswith(said) and CURE in outcomes[case]


def test_in_fp32_the_same_model_trains(outcomes: dict[str, Any]) -> None:
    metrics = outcomes["in fp32"]
    assert math.isfinite(metrics["train_loss"]) and math.isfinite(metrics["eval_loss"])
