"""A stage that is killed and run again ends as one that was left alone: where it hurts, in plain new processes.

`make faults` tries every kind of operation of every stage.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from built import Built
from trials import chain, last

AT = {  # stage -> (how, kind of operation, file), each at its last one; the stages in an order that can be built
    "sft": [("torn", "save", "optimizer.pt"), ("after", "replace", "record.json.tmp")],
    "sample": [("torn", "write", ".kept.jsonl")],
    "collect": [("full", "write", "rows.jsonl.tmp"), ("before", "replace", "pairs.jsonl.tmp")],
}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("faults") / "run")


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=pytest.mark.slow) if name == "sample" else name for name in AT]
)
def test_a_stage_that_is_killed_or_finds_the_disk_full_ends_as_one_that_was_left_alone(
    every: Built, stage: str
) -> None:
    every.build(stage)
    asked = [last(every, stage, *at) for at in AT[stage]]
    befell, wrong = chain(every, stage, asked)
    assert (len(befell), wrong) == (len(asked), [])
