"""The store keeps every version, forgets nothing, and survives a torn last line."""

from pathlib import Path

from trueup.feedback.annotations import Annotation
from trueup.feedback.store import Store


def verdict(number: int, up: bool, at: str) -> Annotation:
    return Annotation(number, f"u{number}", "8", up, (), "", None, at)


def test_a_changed_mind_is_the_current_one_and_the_old_line_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.append([verdict(1, True, "10:00"), verdict(2, True, "10:00")]) == 2
    assert store.append([verdict(1, False, "10:05"), verdict(2, True, "10:00")]) == 1
    assert [row["up"] for row in store.current({1, 2})] == [False, True]
    assert len((tmp_path / "annotations.jsonl").read_text().splitlines()) == 3


def test_an_annotation_deleted_on_the_server_is_not_current(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00"), verdict(2, True, "10:00")])
    assert [row["annotation_id"] for row in store.current({2})] == [2]


def test_a_torn_last_line_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([verdict(1, True, "10:00")])
    with (tmp_path / "annotations.jsonl").open("a") as out:
        out.write('{"annotation_id": 2, "upd')
    assert store.append([verdict(2, False, "10:01")]) == 1
    assert [row["annotation_id"] for row in store.current({1, 2})] == [1, 2]


def test_projects_are_remembered_by_server(tmp_path: Path) -> None:
    Store(tmp_path).remember_project("http://a", 4)
    assert (Store(tmp_path).project("http://a"), Store(tmp_path).project("http://b")) == (4, None)
