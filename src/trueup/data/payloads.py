"""What went into a model and came out of it, in the shapes in which applications write it down."""

from __future__ import annotations

import json
from typing import Any

from trueup.data.example import Record
from trueup.data.faults import RowFault
from trueup.data.values import is_empty, is_missing

_ANSWERS = ("output", "answer", "response", "text", "content", "completion")
_ASKED = ("input", "question", "query", "prompt", "text")
_BY_CLASS = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}
_CLASSES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}


def refuse_tools(call: Record) -> None:
    if not is_empty(call.get("tools")):
        raise RowFault("tool calls", "the model was given tools; only answers to texts alone are judged")


def turns_asked(value: Any) -> list[Any]:
    if isinstance(value, dict):
        refuse_tools(value)
    if isinstance(value, dict) and "messages" in value:
        return _unnested(value["messages"])
    if isinstance(value, list):
        return _unnested(value)
    if isinstance(value, dict) and not is_missing(said := first(value, _ASKED)):
        value = said
    if isinstance(value, str) and not is_missing(value):
        return [{"role": "user", "content": value}]
    raise RowFault("unknown input", "the trace's input is neither a text nor messages")


def turn_answered(value: Any) -> Any:
    """The assistant's turn, of whatever shape the application wrote."""
    if isinstance(value, dict):
        if found := choices(value):
            return found[0]
        if isinstance(value.get("generations"), list):
            value = next(iter(_unnested(value["generations"])), None)
            value = value.get("message") or value.get("text") if isinstance(value, dict) else value
        elif isinstance(value.get("messages"), list):
            value = _unnested(value["messages"])
        elif "role" not in value and "kwargs" not in value and "type" not in value:
            value = payload(first(value, _ANSWERS))
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


def choices(response: Record) -> list[Any]:
    choices = response.get("choices")
    found = (
        choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    )
    return [{k: v for k, v in found.items() if not is_missing(v)}] if isinstance(found, dict) else []


def payload(value: Any) -> Any:
    """JSON that was written as a text, read; other texts and values as they are."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def first(value: Record, names: tuple[str, ...]) -> Any:
    return next((value[name] for name in names if not is_missing(value.get(name))), None)


def listed(value: Any) -> list[Any]:
    value = payload(value)
    return value if isinstance(value, list) else []
