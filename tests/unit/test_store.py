"""The store keeps every version, forgets nothing, and survives a torn last line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trueup.errors import FeedbackError
from trueup.feedback.judgement import Edit, Thumb, from_row
from trueup.feedback.store import Store, to_line
from trueup.run.artifacts import read_jsonl, write_json


def verdict(number: int, up: bool, at: str, **more: Any) -> Thumb:
    return Thumb(uid=f"u{number}", annotator="8", annotation_id=number, updated_at=at, up=up, **more)


def current(store: Store, present: set[int], key: str) -> list[dict[str, Any]]:
    return [to_line(said) for said in store.current(present, key)]


def test_a_changed_mind_is_the_current_one_and_the_old_line_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.append([verdict(1, True, "10:00"), verdict(2, True, "10:00")], "p") == 2
    assert store.append([verdict(1, False, "10:05"), verdict(2, True, "10:00")], "p") == 1
    assert {row["annotation_id"]: row["up"] for row in current(store, {1, 2}, "p")} == {1: False, 2: True}
    assert len((tmp_path / "annotations.jsonl").read_text().splitlines()) == 3


def test_an_annotation_deleted_on_the_server_is_not_current(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00"), verdict(2, True, "10:00")], "p")
    assert [row["annotation_id"] for row in current(store, {2}, "p")] == [2]


def test_a_comment_with_unicode_line_breaks_is_read_back(tmp_path: Path) -> None:
    comment = "one\u2028two\x85three\nfour\r\nfive"
    store = Store(tmp_path)
    assert store.append([verdict(1, True, "10:00", comment=comment)], "p") == 1
    assert store.append([verdict(1, True, "10:00", comment=comment)], "p") == 0
    assert [row["comment"] for row in current(store, {1}, "p")] == [comment]


def edit(number: int, text: str, at: str) -> Edit:
    return Edit(uid=f"u{number}", annotator="8", annotation_id=number, updated_at=at, text=text)


def said(store: Store, present: set[int]) -> list[tuple[int, str, Any]]:
    return [(row["annotation_id"], row["kind"], row.get("text", row.get("up"))) for row in current(store, present, "p")]


def test_a_thumb_and_a_better_answer_of_one_annotation_change_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    both = [verdict(1, False, "10:00"), edit(1, "better", "10:00"), verdict(2, True, "10:00")]
    assert store.append(both, "p") == 3
    assert store.append(both, "p") == 0
    assert said(store, {1, 2}) == [(1, "thumb", False), (1, "edit", "better"), (2, "thumb", True)]
    assert store.append([verdict(1, False, "10:05"), edit(1, "best", "10:05")], "p") == 2
    assert said(store, {1, 2}) == [(2, "thumb", True), (1, "thumb", False), (1, "edit", "best")]
    assert store.append([verdict(1, True, "10:06")], "p") == 1  # the better answer was taken back
    assert said(store, {1, 2}) == [(2, "thumb", True), (1, "thumb", True)]
    assert store.num_gone({2}, "p") == 1  # annotations, not judgements


def test_half_an_annotation_that_a_crash_left_is_completed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    both = [verdict(1, False, "10:00"), edit(1, "better", "10:00")]
    store.append(both, "p")
    store.path.write_bytes(store.path.read_bytes().split(b"\n")[0] + b"\n")
    assert said(store, {1}) == [(1, "thumb", False)]
    store.append(both, "p")
    assert said(store, {1}) == [(1, "thumb", False), (1, "edit", "better")]


EARLIER = Path(__file__).parents[1] / "fixtures" / "earlier_annotations.jsonl"


def test_a_store_of_before_there_were_kinds_is_read_and_goes_on(tmp_path: Path) -> None:
    """Lines as an earlier version wrote them, from a real Label Studio: thumbs, a better answer, a changed mind."""
    store = Store(tmp_path)
    shutil.copy(EARLIER, store.path)
    assert store.broken() == []
    rows = list(read_jsonl(EARLIER))
    last = {row["annotation_id"]: row for row in rows}
    now = current(store, set(last), rows[0]["project"])
    assert {row["annotation_id"]: row["up"] for row in now if row["kind"] == "thumb"} == {
        number: row["up"] for number, row in last.items()
    }
    assert {row["annotation_id"]: row["text"] for row in now if row["kind"] == "edit"} == {
        number: row["edited"] for number, row in last.items() if row["edited"]
    }
    again = [from_row({k: v for k, v in row.items() if k != "project"})[0] for row in now]
    assert store.append(again, rows[0]["project"]) == 0
    assert store.path.read_bytes() == EARLIER.read_bytes()


def test_screens_have_projects_of_their_own_and_one_store(tmp_path: Path) -> None:
    thumbs, pairwise = Store(tmp_path), Store(tmp_path, "pairwise")
    thumbs.remember_project("http://a", 4, "k")
    assert pairwise.project("http://a") is None
    pairwise.remember_project("http://a", 5, "l")
    assert (thumbs.project("http://a"), pairwise.project("http://a")) == ((4, "k"), (5, "l"))
    thumbs.append([verdict(1, True, "10:00")], "k")
    pairwise.append([verdict(1, False, "10:00")], "l")
    assert [row["up"] for row in current(pairwise, {1}, "l")] == [True, False]


def test_a_torn_last_line_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00")], "p")
    with (tmp_path / "annotations.jsonl").open("a") as out:
        out.write('{"annotation_id": 2, "upd')
    assert store.append([verdict(2, False, "10:01")], "p") == 1
    assert [row["annotation_id"] for row in current(store, {1, 2}, "p")] == [1, 2]


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{", b"[]", b'{"annotation_id": 2}', b"[" * 100_000, b""])
def test_a_broken_line_in_the_middle_is_named_and_the_rest_is_kept(tmp_path: Path, line: bytes) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00")], "p")
    with (tmp_path / "annotations.jsonl").open("ab") as out:
        out.write(line + b"\n")
    store.append([verdict(3, False, "10:01")], "p")
    assert [row["annotation_id"] for row in current(store, {1, 2, 3}, "p")] == [1, 3]
    assert store.broken() == ["annotations.jsonl:2"]


def test_a_vote_changed_after_the_servers_clock_went_back_is_the_current_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00")], "p")
    assert store.append([verdict(1, False, "09:00")], "p") == 1
    assert [row["up"] for row in current(store, {1}, "p")] == [False]


def test_verdicts_come_in_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(5, True, "10:02"), verdict(7, True, "10:01")], "p")
    assert [row["annotation_id"] for row in current(store, {5, 7}, "p")] == [7, 5]
    store.append([verdict(5, True, "10:02"), verdict(7, False, "10:03")], "p")
    assert [row["annotation_id"] for row in current(store, {5, 7}, "p")] == [5, 7]


def test_what_is_no_longer_on_the_server_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(n, True, "10:00") for n in (1, 2, 3)], "p")
    store.append([verdict(4, True, "10:00")], "another project")
    assert store.num_gone({2}, "p") == 2


def test_projects_are_remembered_by_server(tmp_path: Path) -> None:
    key = Store(tmp_path).begin_project("http://a")
    assert Store(tmp_path).project("http://a") is None
    assert Store(tmp_path).begin_project("http://a") == key  # the answer to its creation was lost
    known = Store(tmp_path).remember_project("http://a", 4, key)
    assert (Store(tmp_path).project("http://a"), Store(tmp_path).project("http://b")) == (known, None)
    assert known == (4, key)


@pytest.mark.parametrize("now", ["http://127.0.0.1:8257/", "http://localhost:8257", "HTTP://LocalHost:8257//"])
def test_a_servers_other_spellings_find_the_project_of_an_older_store(tmp_path: Path, now: str) -> None:
    write_json(tmp_path / "projects.json", {"http://127.0.0.1:8257": {"id": 3, "key": "k"}})
    assert Store(tmp_path).project(now) == (3, "k")
    Store(tmp_path).remember_project(now, 5, "l")
    assert json.loads((tmp_path / "projects.json").read_text()) == {"http://127.0.0.1:8257": {"id": 5, "key": "l"}}


@pytest.mark.parametrize("text", ["", "[]", '{"http://a": 4}', '{"http://a": {"id": "4", "key": "k"}}', "{torn"])
def test_a_torn_note_of_the_projects_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "projects.json").write_text(text)
    with pytest.raises(FeedbackError, match=r"projects\.json: not what trueup wrote"):
        Store(tmp_path).project("http://a")


def test_labels_of_a_lost_project_stay_beside_those_of_its_successor(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00")], "lost")
    store.append([verdict(1, False, "11:00")], "new")
    assert [(row["project"], row["up"]) for row in current(store, {1}, "new")] == [("lost", True), ("new", False)]
    assert [row["project"] for row in current(store, set(), "new")] == ["lost"]


def test_who_judged_stays_known_when_the_account_is_deleted(tmp_path: Path) -> None:
    store, known = Store(tmp_path), verdict(1, True, "10:00")
    store.append([known], "key")
    assert store.append([replace(known, annotator="unknown-1")], "key") == 0
    changed = replace(known, annotator="unknown-1", up=False, updated_at="10:05")
    assert store.append([changed], "key") == 1
    assert [(row["annotator"], row["up"]) for row in store.latest()] == [(known.annotator, False)]


@pytest.mark.parametrize("text", ["[]", "{", '{"right": []}', "null"])
def test_what_was_asked_is_not_guessed(tmp_path: Path, text: str) -> None:
    assert Store(tmp_path).asked() == {}
    (tmp_path / "asked.json").write_text(text)
    with pytest.raises(FeedbackError, match=r"asked\.json: not what trueup wrote there"):
        Store(tmp_path).asked()
