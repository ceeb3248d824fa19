"""Traces of an application in use, with what its users thought of the answers: chat logs, Langfuse, LangSmith.

Langfuse: https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields. LangSmith:
https://docs.langchain.com/langsmith/run-data-format and feedback-data-format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from trueup.data.dialogue import Messages, split_answer, turns
from trueup.data.example import Example, Record, Verdict
from trueup.data.faults import RowFault
from trueup.data.payloads import choices, first, listed, payload, refuse_tools, turn_answered, turns_asked
from trueup.data.score_rows import Score, either, moment, of_langfuse, of_langsmith, plain
from trueup.data.scores import NO_SCORE, Scores
from trueup.data.values import is_empty, is_missing
from trueup.data.verdicts import as_number

MOST_COUNTED = 100_000  # scores of one answer
SAID = ("feedback", "score")  # of a log, or of a turn in it
_VALUE, _USER = ("score", "value", "thumb", "rating"), ("user", "user_id", "annotator")
_WHEN = ("timestamp", "updated_at", "created_at")
_KNOWN = frozenset((*_VALUE, *_USER, *_WHEN, "comment"))


def chat_log(record: Record, scores: Scores) -> list[Example]:
    """OpenAI's messages with feedback on the last answer, or on any of the assistant's turns; each is a thumb."""
    given = payload(record["messages"])
    if not isinstance(given, list):
        raise RowFault("not a dialogue", "messages is no list of turns")
    refuse_tools(record)
    given = [*given, *choices(record)]
    bare = [{k: v for k, v in turn.items() if k not in SAID} if isinstance(turn, dict) else turn for turn in given]
    messages = turns(bare, "messages")
    found = []
    for number, turn in enumerate(given):
        if messages[number]["role"] == "assistant":
            found += _judged(messages[: number + 1], scores.verdicts(_in_log(turn, scores)))
    last = scores.verdicts(_in_log(record, scores))
    if last and messages[-1]["role"] != "assistant":
        raise RowFault("empty answer", "messages ends with the user's turn: there is no answer that was scored")
    return found + _judged(messages, last) or _without(scores)


def request_log(record: Record, scores: Scores) -> list[Example]:
    """A request to OpenAI's API, its response, and feedback."""
    request, response = payload(record["request"]), payload(record["response"])
    if not isinstance(request, dict):
        raise RowFault("not a dialogue", "request is no object with messages")
    refuse_tools(request)
    scores.unused.update(f"request.{key}" for key in request.keys() - {"messages"} if not is_empty(request[key]))
    asked = request.get("messages")
    answered = choices(response if isinstance(response, dict) else {})
    messages = turns([*listed(asked), *answered], "request and response")
    if not answered:
        raise RowFault("empty answer", "response holds no choices with a message: there is no answer that was scored")
    return _judged(messages, scores.verdicts(_in_log(record, scores))) or _without(scores)


def langfuse(record: Record, scores: Scores) -> list[Example]:
    """A generation or a trace of Langfuse's, with its scores inside or in a file beside it."""
    get = either(record)
    kind, trace = record.get("type"), get("trace_id")
    if kind is not None and str(kind).upper() != "GENERATION":
        scores.left["observation that is no generation"] += 1
        return []
    own_id = plain(record["id"])
    keys = [f"trace {own_id}"] if trace is None else [own_id]
    if trace is not None and scores.ends_trace(record):
        keys.append(f"trace {plain(trace)}")
    rows = [*listed(record.get("scores")), *scores.beside(*keys)]
    user = get("user_id")
    read = [of_langfuse(row) for row in rows if isinstance(row, dict)]
    own = [one if one.user else replace(one, user=plain(user)) for one in read]
    return _of_calls(record.get("input"), record.get("output"), scores, own)


def langsmith(record: Record, scores: Scores) -> list[Example]:
    """A run of LangSmith's, with its feedback inside, in a file beside it, or as statistics."""
    rows = [*listed(record.get("feedback")), *scores.beside(plain(record["id"]))]
    read = [of_langsmith(row) for row in rows if isinstance(row, dict)]
    return _of_calls(record["inputs"], record["outputs"], scores, read or list(_counted(record)))


def _of_calls(asked: Any, answered: Any, scores: Scores, given: list[Score]) -> list[Example]:
    verdicts = scores.verdicts(given)
    if not verdicts:
        return _without(scores)
    return _judged(turns([*turns_asked(payload(asked)), turn_answered(payload(answered))], "the trace"), verdicts)


def _judged(messages: Messages, verdicts: list[Verdict]) -> list[Example]:
    """The last answer with what people said of it; nothing where nobody did."""
    if not verdicts:
        return []
    if any(turn["role"] == "tool" or "tool_calls" in turn for turn in messages):
        raise RowFault("tool calls", "the trace calls tools; only texts are judged")
    prompt, answer = split_answer(messages)
    ups = sum(one.value is True for one in verdicts)
    downs = sum(one.value is False for one in verdicts)
    completion = answer["content"] if answer else ""
    barred = "no preference" if ups == downs else ""
    return [Example(prompt, completion, label=ups > downs, votes=(ups, downs), verdicts=verdicts, barred=barred)]


def _without(scores: Scores) -> list[Example]:
    scores.left[NO_SCORE] += 1
    return []


def _in_log(said: Any, scores: Scores) -> Iterator[Score]:
    """The feedback of a log or of a turn: a value, {score, user, comment, timestamp}, or a list of these."""
    for name in SAID if isinstance(said, dict) else ():
        for one in listed(found := payload(said.get(name))) or [found]:
            inside: Record = one if isinstance(one, dict) else {"value": one}
            if is_missing(value := first(inside, _VALUE)):
                continue
            user, when = (first(inside | {k: v for k, v in said.items() if k not in inside}, n) for n in (_USER, _WHEN))
            scores.unused.update(f"{name}.{key}" for key in inside.keys() - _KNOWN if not is_empty(inside[key]))
            yield Score(
                value,
                user=plain(user),
                when=moment(when),
                comment=plain(inside.get("comment")),
            )


def _counted(record: Record) -> Iterator[Score]:
    """The scores that LangSmith's statistics count, where they can only have been 0 and 1: n scores of mean avg."""
    stats = payload(record.get("feedback_stats"))
    for name, one in stats.items() if isinstance(stats, dict) else ():
        number, mean = (as_number(one.get(key)) if isinstance(one, dict) else None for key in ("n", "avg"))
        if not number or mean is None:
            continue
        if number != int(number) or not 0 < number < MOST_COUNTED:
            raise RowFault("unknown verdict", f"feedback_stats.{name} counts {number:g} scores")
        ups = number * mean
        if not 0 <= mean <= 1 or abs(ups - round(ups)) > 1e-6:
            raise RowFault("unknown verdict", f"feedback_stats.{name} is a mean of other scores than 0 and 1")
        yield from (Score(k < round(ups), name=str(name)) for k in range(int(number)))
