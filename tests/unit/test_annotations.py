"""Annotations as Label Studio stores them become verdicts, or are named with the reason."""

import json
from typing import Any

import pytest

from trueup.feedback.annotations import parse
from trueup.feedback.judgement import Comparison, Edit, Rating, Thumb, from_row, to_row
from trueup.feedback.tasks import CUT, counted, num_cleaned, surplus, to_task, uid_of


def task(*results: dict[str, Any], **raw: Any) -> dict[str, Any]:
    annotation = {"id": 3, "completed_by": {"id": 8}, "result": list(results), "updated_at": "t"} | raw
    return {"data": {"uid": "u", "response": "text"}, "annotations": [annotation]}


def choice(name: str, *values: str) -> dict[str, Any]:
    return {"from_name": name, "type": "choices", "value": {"choices": list(values)}}


def written(name: str, text: str) -> dict[str, Any]:
    return {"from_name": name, "type": "textarea", "value": {"text": [text]}}


def test_a_thumb_with_reasons_and_an_untouched_edit() -> None:
    good, bad = parse(task(choice("thumb", "down"), choice("why", "wrong", "style"), written("edited", "text ")))
    assert bad == []
    assert good == [
        Thumb(uid="u", annotator="8", annotation_id=3, updated_at="t", up=False, reasons=("wrong", "style"))
    ]


def test_a_better_answer_is_kept() -> None:
    good, _ = parse(task(choice("thumb", "down"), written("edited", "better"), completed_by=8))
    common = {"uid": "u", "annotator": "8", "annotation_id": 3, "updated_at": "t"}
    assert good == [Thumb(**common, up=False), Edit(**common, text="better")]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (task(was_cancelled=True), "skipped"),
        (task(), "submitted without a thumb"),
        (task(choice("vote", "up")), r"no control named thumb \(renamed\?\), but \['vote'\]"),
        (task(choice("thumb", "Good")), r"thumb is \['Good'\], expected up or down \(was an alias changed\?\)"),
        (task(choice("thumb", "maybe")), "thumb is .*maybe"),
        (task(choice("thumb", "up", "down")), "thumb is .*up.*down"),
    ],
)
def test_what_is_no_verdict_is_named(made: dict[str, Any], why: str) -> None:
    import re

    good, bad = parse(made)
    assert good == []
    assert re.match(why, bad[0].why)


def test_half_an_emoji_in_a_comment_leaves_the_verdict() -> None:
    good, _ = parse(task(choice("thumb", "up"), written("reason", "nice \ud83d")))
    assert (good[0].verdict, good[0].comment) == (True, "nice \ufffd")


def test_a_task_without_uid_is_not_ours() -> None:
    assert uid_of({"data": {"text": "theirs"}}) is None
    assert parse({"data": {"text": "theirs"}, "annotations": [{"id": 1}]}) == ([], [])


def test_verdicts_of_a_deleted_account_are_each_a_persons_own() -> None:
    good, _ = parse(task(choice("thumb", "up"), completed_by=None))
    assert good[0].annotator == "unknown-3"


def test_tasks_carry_uid_and_clean_text_only() -> None:
    row = {"uid": "u", "prompt_id": "p", "messages": [{"role": "user", "content": "a\x00b"}], "completion": "c\u202ed"}
    made = to_task(row | {"logp": -3.0})
    assert made == {"data": {"uid": "u", "messages": [{"role": "user", "content": "ab"}], "response": "cd", "cut": ""}}
    assert to_task(row | {"finish": "length"})["data"]["cut"] == CUT
    assert to_task(row | {"finish": "eos"})["data"]["cut"] == ""
    assert num_cleaned([row, row | {"completion": "x", "messages": []}]) == 1


def test_a_call_of_a_tool_is_shown() -> None:
    call = {"type": "function", "function": {"name": "stock", "arguments": {"item": "tent"}}}
    row = {"uid": "u", "completion": "Two.", "messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    assert json.loads(to_task(row)["data"]["messages"][0]["content"]) == call


def test_of_tasks_that_came_twice_the_untouched_younger_ones_go() -> None:
    def listed(number: int, uid: Any, **counts: Any) -> dict[str, Any]:
        return {"id": number, "data": {"uid": uid}} | counts

    tasks = [listed(9, "a"), listed(1, "a"), listed(3, "b"), listed(4, "b", total_annotations=1), listed(5, "c")]
    judged_twice = [listed(6, "d", cancelled_annotations=1), listed(7, "d", total_annotations=2), listed(8, "d")]
    foreign = [{"id": 10, "data": {"text": "t"}}, {"id": 11, "data": {"text": "t"}}]
    assert sorted(surplus([counted(one) for one in tasks + judged_twice + foreign])) == [3, 8, 9]


PAIR = {"uid": "pair", "uid_a": "x", "uid_b": "y"}
COMMON: dict[str, Any] = {"annotator": "8", "annotation_id": 3, "updated_at": "t"}


def test_each_screen_has_a_parser_and_all_keep_how_long_and_under_which_guidelines() -> None:
    common = COMMON | {"lead_time": 2.5, "guidelines": "a1b2"}

    def said(interface: str, data: dict[str, Any], *results: dict[str, Any]) -> list[Any]:
        made = task(*results, written("guidelines", "a1b2"), lead_time=2.5) | {"data": data}
        good, bad = parse(made, interface)
        assert bad == []
        return good

    answer = {"uid": "u", "response": "text"}
    assert said("thumbs", answer, choice("thumb", "up")) == [Thumb(uid="u", up=True, **common)]
    assert said("rating", answer, choice("rating", "4")) == [Rating(uid="u", rating=4, **common)]
    assert said("edit", answer, written("edited", "longer text")) == [Edit(uid="u", text="longer text", **common)]
    assert said("edit", answer, written("edited", "text")) == [Edit(uid="u", text="text", **common)]
    for preferred in ("a", "b", "tie", "both_bad"):
        expected = Comparison(uid="pair", a="x", b="y", preferred=preferred, **common)
        assert said("pairwise", PAIR, choice("preference", preferred)) == [expected]


@pytest.mark.parametrize(
    ("interface", "result", "why"),
    [
        ("pairwise", choice("preference", "left"), "preference is ['left'], expected a, b, tie or both_bad"),
        ("pairwise", choice("thumb", "up"), "no control named preference (renamed?), but ['thumb']"),
        ("rating", choice("rating", "6"), "rating is ['6'], expected 1, 2, 3, 4 or 5"),
        ("edit", written("reason", "no"), "no control named edited (renamed?), but ['reason']"),
        ("edit", written("edited", " "), "submitted without a text"),
    ],
)
def test_what_a_screen_does_not_offer_is_no_judgement(interface: str, result: dict[str, Any], why: str) -> None:
    good, bad = parse(task(result) | {"data": PAIR}, interface)
    assert good == []
    assert bad[0].why.startswith(why)


def test_a_comparison_whose_sides_are_not_known_is_named() -> None:
    good, bad = parse(task(choice("preference", "a")), "pairwise")
    assert good == []
    assert "does not say which answers it shows" in bad[0].why


@pytest.mark.parametrize("time", [None, -1, "3", True, float("nan"), 10**400])
def test_a_time_that_is_none_is_not_known(time: Any) -> None:
    good, _ = parse(task(choice("thumb", "up"), lead_time=time))
    assert good[0].lead_time is None


def test_a_judgement_is_read_from_its_line_as_it_was() -> None:
    for one in (
        Thumb(uid="u", up=False, reasons=("wrong",), comment="c", lead_time=1.5, guidelines="g", **COMMON),
        Comparison(uid="p", a="x", b="y", preferred="tie", **COMMON),
        Rating(uid="u", rating=5, **COMMON),
        Edit(uid="u", text="t", **COMMON),
    ):
        assert from_row(json.loads(json.dumps(to_row(one)))) == [one]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([], "no object"),
        ({"kind": "vote", "uid": "u", "annotator": "8"}, "kind is 'vote'"),
        ({"kind": "thumb", "uid": "u", "annotator": "8"}, "up"),
        ({"kind": "thumb", "uid": "u", "annotator": "8", "up": 1}, "up is 1"),
        ({"kind": "rating", "uid": "u", "annotator": "8", "rating": True}, "rating is True"),
        ({"kind": "rating", "uid": "u", "annotator": "8", "rating": 6}, "rating is 6"),
        ({"kind": "comparison", "uid": "u", "annotator": "8", "a": "x", "b": "y", "preferred": "c"}, "preferred is"),
        ({"uid": "u", "annotator": "8", "up": True, "edited": 3}, "edited is 3"),
        ({"uid": 3, "annotator": "8", "up": True}, "uid is 3"),
    ],
)
def test_a_line_that_is_no_judgement_says_why(row: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_row(row)
