"""Traces of an application in use, with what its users thought of the answers: chat logs, Langfuse, LangSmith.

Langfuse: https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields. LangSmith:
https://docs.langchain.com/langsmith/run-data-format and feedback-data-format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from trueup.data.dialogue import Messages, split_answer, turns
from trueup.data.example import Example, Record, Verdict
from trueup.data.faults import RowFault
from trueup.data.scores import NO_SCORE, Score, Scores, either, moment, of_langfuse, of_langsmith, plain
from trueup.data.values import is_empty, is_missing
from trueup.data.verdicts import as_number

MOST_COUNTED = 100_000  # scores of one answer
SAID = ("feedback", "score")  # of a log, or of a turn in it
_VALUE, _USER = ("score", "value", "thumb", "rating"), ("user", "user_id", "annotator")
_WHEN = ("timestamp", "updated_at", "created_at")
_KNOWN = frozenset((*_VALUE, *_USER, *_WHEN, "comment"))
_ANSWERS = ("output", "answer", "response", "text", "content", "completion")
_ASKED = ("input", "question", "query", "prompt", "text")
_BY_CLASS = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}
_CLASSES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}


def chat_log(record: Record, scores: Scores) -> list[Example]:
    """OpenAI's messages with feedback on the last answer, or on any of the assistant's turns; each is a thumb."""
    given = _payload(record["messages"])
    if not isinstance(given, list):
        raise RowFault("not a dialogue", "messages is no list of turns")
    _refuse_tools(record)
    given = [*given, *_choices(record)]
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
    request, response = _payload(record["request"]), _payload(record["response"])
    if not isinstance(request, dict):
        raise RowFault("not a dialogue", "request is no object with messages")
    _refuse_tools(request)
    scores.unused.update(f"request.{key}" for key in request.keys() - {"messages"} if not is_empty(request[key]))
    asked = request.get("messages")
    messages = turns([*_list(asked), *_choices(response if isinstance(response, dict) else {})], "request and response")
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
    rows = [*_list(record.get("scores")), *scores.beside(*keys)]
    user = get("user_id")
    read = [of_langfuse(row) for row in rows if isinstance(row, dict)]
    own = [one if one.user else replace(one, user=plain(user)) for one in read]
    return _of_calls(record.get("input"), record.get("output"), scores, own)


def langsmith(record: Record, scores: Scores) -> list[Example]:
    """A run of LangSmith's, with its feedback inside, in a file beside it, or as statistics."""
    rows = [*_list(record.get("feedback")), *scores.beside(plain(record["id"]))]
    read = [of_langsmith(row) for row in rows if isinstance(row, dict)]
    return _of_calls(record["inputs"], record["outputs"], scores, read or list(_counted(record)))


def _of_calls(asked: Any, answered: Any, scores: Scores, given: list[Score]) -> list[Example]:
    verdicts = scores.verdicts(given)
    if not verdicts:
        return _without(scores)
    return _judged(turns([*_turns_asked(_payload(asked)), _turn_answered(_payload(answered))], "the trace"), verdicts)


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


def _refuse_tools(call: Record) -> None:
    if not is_empty(call.get("tools")):
        raise RowFault("tool calls", "the model was given tools; only answers to texts alone are judged")


def _without(scores: Scores) -> list[Example]:
    scores.left[NO_SCORE] += 1
    return []


def _in_log(said: Any, scores: Scores) -> Iterator[Score]:
    """The feedback of a log or of a turn: a value, {score, user, comment, timestamp}, or a list of these."""
    for name in SAID if isinstance(said, dict) else ():
        for one in _list(found := _payload(said.get(name))) or [found]:
            inside: Record = one if isinstance(one, dict) else {"value": one}
            if is_missing(value := _first(inside, _VALUE)):
                continue
            user, when = (
                _first(inside | {k: v for k, v in said.items() if k not in inside}, n) for n in (_USER, _WHEN)
            )
            scores.unused.update(f"{name}.{key}" for key in inside.keys() - _KNOWN if not is_empty(inside[key]))
            yield Score(
                value,
                user=plain(user),
                when=moment(when),
                comment=plain(inside.get("comment")),
            )


def _counted(record: Record) -> Iterator[Score]:
    """The scores that LangSmith's statistics count, where they can only have been 0 and 1: n scores of mean avg."""
    stats = _payload(record.get("feedback_stats"))
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


def _turns_asked(value: Any) -> list[Any]:
    if isinstance(value, dict):
        _refuse_tools(value)
    if isinstance(value, dict) and "messages" in value:
        return _unnested(value["messages"])
    if isinstance(value, list):
        return _unnested(value)
    if isinstance(value, dict) and not is_missing(said := _first(value, _ASKED)):
        value = said
    if isinstance(value, str) and not is_missing(value):
        return [{"role": "user", "content": value}]
    raise RowFault("unknown input", "the trace's input is neither a text nor messages")


def _turn_answered(value: Any) -> Any:
    """The assistant's turn, of whatever shape the application wrote."""
    if isinstance(value, dict):
        if found := _choices(value):
            return found[0]
        if isinstance(value.get("generations"), list):
            value = next(iter(_unnested(value["generations"])), None)
            value = value.get("message") or value.get("text") if isinstance(value, dict) else value
        elif isinstance(value.get("messages"), list):
            value = _unnested(value["messages"])
        elif "role" not in value and "kwargs" not in value and "type" not in value:
            value = _payload(_first(value, _ANSWERS))
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, str) and not is_missing(value):
        return {"role": "assistant", "content": value}
    if isinstance(value, dict):
        return _turn(value)
    raise RowFault("empty answer", "the trace's output is neither a text nor a message")


def _unnested(value: Any) -> list[Any]:
    """Messages, or a batch of one list of them, as LangChain writes it."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return [_turn(one) for one in value] if isinstance(value, list) else []


def _turn(value: Any) -> Any:
    """{role, content} of a message of LangChain's, serialized or not; others as they are."""
    if not isinstance(value, dict) or "role" in value:
        return value
    inner, names = value.get("kwargs"), value.get("id")
    given: Record = inner if isinstance(inner, dict) else value
    kind = given.get("type")
    role = _BY_CLASS.get(str(names[-1])) if isinstance(names, list) and names else None
    role = role or _CLASSES.get(str(kind), kind)
    if "content" not in given or role is None:
        return value
    calls = {"tool_calls": given["tool_calls"]} if given.get("tool_calls") else {}
    return {"role": role, "content": given["content"]} | calls


def _choices(response: Record) -> list[Any]:
    choices = response.get("choices")
    found = (
        choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    )
    return [{k: v for k, v in found.items() if not is_missing(v)}] if isinstance(found, dict) else []


def _payload(value: Any) -> Any:
    """JSON that was written as a text, read; other texts and values as they are."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _first(value: Record, names: tuple[str, ...]) -> Any:
    return next((value[name] for name in names if not is_missing(value.get(name))), None)


def _list(value: Any) -> list[Any]:
    value = _payload(value)
    return value if isinstance(value, list) else []
