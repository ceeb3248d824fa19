"""Labels in each spelling; a file that cannot be read as thumbs, or of which one side cannot, stops the stage."""

import json
from pathlib import Path
from typing import Any

import pytest

from trueup.data import read_preferences
from trueup.errors import DataError
from trueup.run.data_config import DataConfig


def read(folder: Path, labels: list[Any]) -> tuple[list[bool], dict[str, int]]:
    path = folder / "d.jsonl"
    rows = [{"prompt": f"q{i}", "completion": "a", "label": label} for i, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left_out = read_preferences(DataConfig.model_validate({"preferences": path}))
    return [row["votes"] == (1, 0) for row in found], left_out


SPELLINGS = [
    (True, False), (1, 0), (1, -1), (1.0, 0.0), ("1.0", "0.0"), ("+1", "-1"), ("true", "False"), ("Yes", "no"),
    ("good", "bad"), ("up", "down"), ("thumbs_up", "thumbs-down"), ("Thumbs Up", "Thumbs Down"), ("like", "dislike"),
    ("chosen", "rejected"), ("positive", "negative"), ("desirable", "undesirable"), ("👍", "👎"), (" 1 ", " 0"),
]  # fmt: skip


@pytest.mark.parametrize(("up", "down"), SPELLINGS, ids=[str(pair) for pair in SPELLINGS])
def test_each_spelling_of_a_thumb(tmp_path: Path, up: Any, down: Any) -> None:
    assert read(tmp_path, [down, up, down]) == ([False, True, False], {})


def test_words_of_no_verdict_beside_both_sides_are_counted(tmp_path: Path) -> None:
    said, left_out = read(tmp_path, ["good", "bad", "unsure", None])
    assert (said, left_out) == ([True, False], {"unknown verdict": 1, "no verdict": 1})


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["good", "awful", "good"], "awful could not be read, which may be a whole side"),
        ([1, 2, 5], "a scale, not thumbs"),
        ([0.2, 0.9, 1], "a scale, not thumbs"),
        ([1, 0, -1], "both 0 and -1"),
        (["a", "b"], "could not be read"),
    ],
)
def test_labels_that_may_be_anything_stop_the_stage(tmp_path: Path, labels: list[Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, labels)
    assert words in str(caught.value)


@pytest.mark.parametrize("count", [-1, 0.5, "x", float("inf"), None, "9" * 400])
def test_counts_of_people_are_whole_numbers(tmp_path: Path, count: Any) -> None:
    rows = [{"prompt": "q", "completion": "a", "up": 2.0, "down": 1}, {"prompt": "r", "completion": "a", "up": count}]
    rows[1]["down"] = 0
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left_out = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "d.jsonl"}))
    assert ([row["votes"] for row in found], left_out) == ([(2, 1)], {"unknown verdict": 1})
