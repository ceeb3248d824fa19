"""A stage that is killed and run again ends as one that was left alone: where it hurts, in plain new processes.

`make faults` tries every kind of operation of every stage.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from built import Built
from trials import chain, last

# a stage, and (how, kind of operation, file), each at its last one; the stages in an order that can be built
AT = [
    ("sft", [("torn", "save", "optimizer.pt")]),
    pytest.param("sft", [("after", "replace", "record.json.tmp")], marks=pytest.mark.slow),
    pytest.param("sample", [("torn", "write", ".kept.jsonl")], marks=pytest.mark.slow),
    ("collect", [("full", "write", "rows.jsonl.tmp"), ("before", "replace", "pairs.jsonl.tmp")]),
]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("faults") / "run")


@pytest.mark.parametrize(("stage", "faults"), AT)
def test_a_stage_that_is_killed_or_finds_the_disk_full_ends_as_one_that_was_left_alone(
    every: Built, stage: str, faults: list[tuple[str, str, str]]
) -> None:
    every.build(stage)
    befell, wrong = chain(every, stage, asked := [last(every, stage, *at) for at in faults])
    assert (len(befell), wrong) == (len(asked), [])
