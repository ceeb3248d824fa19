"""A stage that was killed goes on in fp16, and ends bit for bit as if it had not been killed."""

from __future__ import annotations

from pathlib import Path

import emulated

pytestmark = emulated.needs_compiler


def test_a_killed_stage_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    found = emulated.run("resume.py", folder=str(tmp_path), capability=(7, 5))
    assert found == {
        "sft": {"killed": True, "resumed_from_step": 4, "equal": True},
        "dpo": {"killed": True, "resumed_from_step": 2, "equal": True},
        "ppo": {"killed": True, "resumed_from_step": 1, "equal": True},
    }
