"""The user's files: every faulty line is named."""

from pathlib import Path

import pytest

from trueup.data import read_demonstrations, read_prompts
from trueup.errors import DataError


def test_a_csv_with_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("question,response\nHi?,Hello\n")
    rows = read_demonstrations(path, {"prompt": "question"}, "Be kind.")
    assert [m["content"] for m in rows[0]["messages"]] == ["Be kind.", "Hi?", "Hello"]


def test_broken_line_17_and_a_prompt_without_text_are_both_named(tmp_path: Path) -> None:
    lines = ['{"prompt": "a"}'] * 20
    lines[16], lines[18] = '{"prompt": ', '{"prompt": " "}'
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"(?s)line 17: not JSON.*line 19: prompt has no text"):
        read_prompts(path, {}, None)


def test_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        read_prompts(tmp_path / "e.jsonl", {}, None)
    with pytest.raises(DataError, match="no such file"):
        read_prompts(tmp_path / "none.jsonl", {}, None)


def test_a_misnamed_column_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompts\nHi\n")
    with pytest.raises(DataError, match=r"did you mean prompts\? Then set data.columns.prompt: prompts"):
        read_prompts(tmp_path / "p.csv", {}, None)
