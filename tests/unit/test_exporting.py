"""Judgements of every kind leave with their texts, in columns that a table can hold."""

from __future__ import annotations

from typing import Any

import pyarrow

from trueup.feedback import exporting
from trueup.feedback.judgement import Comparison, Edit, Judgement, Thumb, to_row

ASKED = [{"role": "user", "content": "q"}]
COMPLETIONS = [{"uid": uid, "prompt_id": "p", "messages": ASKED, "completion": f"text {uid}"} for uid in ("x", "y")]
SAID: list[Judgement] = [
    Thumb(uid="x", annotator="A", up=True),
    Edit(uid="x", annotator="A", text="better"),
    Comparison(uid="pair", annotator="B", a="y", b="x", preferred="tie"),
    Thumb(uid="elsewhere", annotator="A", up=False),
]


def rows() -> list[dict[str, Any]]:
    return exporting.judgements(map(to_row, SAID), COMPLETIONS, {"p": "train"})


def test_each_has_the_texts_that_it_is_about() -> None:
    thumb, edit, comparison, unknown = rows()
    assert (thumb["completion"], thumb["up"], edit["text"]) == ("text x", True, "better")
    assert (comparison["completion_a"], comparison["completion_b"]) == ("text y", "text x")
    assert all(one["prompt"] == ASKED and one["split"] == "train" for one in (thumb, edit, comparison))
    assert (unknown["prompt"], unknown["completion"], unknown["split"], unknown["up"]) == (None, None, None, False)


def test_a_table_keeps_what_only_later_rows_have() -> None:
    """pyarrow takes its columns from the first row."""
    table = pyarrow.Table.from_pylist(rows())
    assert table.column("text").to_pylist() == [None, "better", None, None]
    assert table.column("preferred").to_pylist() == [None, None, "tie", None]


def test_who_compared_an_answer_judged_it() -> None:
    assert exporting.people_of(map(to_row, SAID[:3])) == {"x": ["A", "B"], "y": ["B"]}
