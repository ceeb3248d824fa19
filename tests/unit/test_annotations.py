"""Annotations as Label Studio stores them become verdicts, or are named with the reason."""

import json
from typing import Any

import pytest

from trueup.feedback.annotations import parse
from trueup.feedback.tasks import CUT, num_cleaned, surplus, to_task, uid_of


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
    assert (good[0].up, good[0].annotator, good[0].reasons, good[0].edited) == (False, "8", ("wrong", "style"), None)


def test_a_better_answer_is_kept() -> None:
    good, _ = parse(task(choice("thumb", "down"), written("edited", "better"), completed_by=8))
    assert (good[0].edited, good[0].annotator) == ("better", "8")


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
    assert (good[0].up, good[0].comment) == (True, "nice \ufffd")


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
    judged_twice = [listed(6, "d", cancelled_annotations=1), listed(7, "d", drafts=[{}]), listed(8, "d")]
    foreign = [{"id": 10, "data": {"text": "t"}}, {"id": 11, "data": {"text": "t"}}]
    assert sorted(surplus(tasks + judged_twice + foreign)) == [3, 8, 9]
