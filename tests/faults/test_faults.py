"""A stage that is killed and run again ends as one that was left alone: where it hurts, in plain new processes.

`make faults` tries every kind of operation of every stage.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trials import Faults

AT = {  # stage -> (how, kind of operation, file), each at its last one; the stages in an order that can be built
    "sft": [("torn", "save", "optimizer.pt"), ("after", "replace", "record.json.tmp")],
    "sample": [("torn", "write", "completions.jsonl.tmp")],
    "collect": [("before", "replace", "pairs.jsonl.tmp")],
    "reward": [("before", "replace", "trueup-manifest.json.tmp")],
    "dpo": [("torn", "save_file", "adapter_model.safetensors")],
    "ppo": [("torn", "write", "metrics.jsonl")],
    "grpo": [("torn", "write", "metrics.jsonl")],
}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults") / "run")


@pytest.mark.parametrize("stage", AT)
def test_a_killed_stage_goes_on_and_ends_as_one_that_was_left_alone(every: Faults, stage: str) -> None:
    every.build(stage)
    for how, kind, name in AT[stage]:
        trial = every.last(stage, how, kind, name)
        assert (trial, every.faults(trial)) == (trial, [])
