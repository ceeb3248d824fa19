"""A stage that was killed goes on in fp16, and ends bit for bit as if it had not been killed."""

from __future__ import annotations

from pathlib import Path

import emulated
import pytest

pytestmark = emulated.needs_compiler


RESUMED_FROM = {"sft": 4, "dpo": 2, "ppo": 1}


@pytest.mark.parametrize("stages", [("sft",), pytest.param(("sft", "dpo", "ppo"), marks=pytest.mark.slow)])
def test_a_killed_stage_ends_as_an_uninterrupted_one(tmp_path: Path, stages: tuple[str, ...]) -> None:
    found = emulated.run("resume.py", folder=str(tmp_path), capability=(7, 5), stages=stages)
    assert found == {
        stage: {"killed": True, "resumed_from_step": RESUMED_FROM[stage], "equal": True} for stage in stages
    }
