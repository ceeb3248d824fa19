"""Tools and the calls of them, checked and in one shape: the one that transformers' chat templates are written for."""

from __future__ import annotations

import json
from typing import Any

from trueup.data.faults import RowFault
from trueup.data.values import json_value, list_in, parsed

Tool = dict[str, Any]  # {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}
KIND = "tool calls"


def tools_of(value: Any, name: str) -> list[Tool]:
    """The functions that the model may call. A list, or a text that holds one; a bare function gets its wrapping.

    Raises RowFault on anything that is not a function with a name.
    """
    if isinstance(value, str):
        value = list_in(value, name, always=True)
    if not isinstance(value, list):
        raise RowFault(KIND, f"{name} is no list of functions")
    return [_tool(tool, f"{name} {number}") for number, tool in enumerate(value, start=1)]


def _tool(tool: Any, name: str) -> Tool:
    if isinstance(tool, str):
        tool = parsed(tool)
    if isinstance(tool, dict) and "function" not in tool and "parameters" in tool:
        tool = {"type": "function", "function": tool}
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        raise RowFault(KIND, f'{name} is no {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}')
    _name_of(tool.get("function"), name)
    return {"type": "function"} | _object(tool, name)


def calls_of(value: Any, name: str) -> list[dict[str, Any]]:
    """The tool calls of one assistant message; their arguments become an object, as transformers' templates expect.

    Raises RowFault on anything but [{"type": "function", "function": {"name", "arguments"}}].
    """
    if isinstance(value, str):
        value = list_in(value, name, always=True)
    if not isinstance(value, list) or not value:
        raise RowFault(KIND, f"{name} is no list of calls")
    return [_call(call, f"{name} {number}") for number, call in enumerate(value, start=1)]


def _call(call: Any, name: str) -> dict[str, Any]:
    if not isinstance(call, dict) or call.get("type", "function") != "function":
        raise RowFault(KIND, f'{name} is no {{"type": "function", "function": {{"name": ..., "arguments": ...}}}}')
    if "function" not in call and "arguments" in call:
        call = {**{key: call[key] for key in call.keys() & {"id"}}, "function": call}
    function = call.get("function")
    called = _name_of(function, name)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise RowFault(KIND, f"{name}: the arguments of {called} are no JSON") from None
    if not isinstance(arguments, dict):
        raise RowFault(KIND, f"{name}: the arguments of {called} are no JSON object")
    made: dict[str, Any] = {"type": "function", "function": {"name": called, "arguments": _object(arguments, name)}}
    if call.get("id") is not None:
        made["id"] = json_value(call["id"], name)
    return made


def _name_of(function: Any, name: str) -> str:
    called = function.get("name") if isinstance(function, dict) else None
    if not isinstance(called, str) or not called.strip():
        raise RowFault(KIND, f"{name} is a function without a name")
    return called


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    made: dict[str, Any] = json_value(value, name)
    return made


def refuse_unanswered(messages: list[dict[str, Any]], name: str) -> None:
    """Raises RowFault unless each call inside the dialogue has one result, and each result is one call's."""
    waiting: list[Any] = []
    for number, message in enumerate(messages, start=1):
        if message["role"] == "tool":
            wanted = message.get("tool_call_id")
            if wanted is not None and wanted in waiting:
                waiting.remove(wanted)
            elif waiting and (wanted is None or None in waiting):
                waiting.remove(None) if None in waiting else waiting.pop(0)
            else:
                raise RowFault(KIND, f"{name} {number} is the result of no call: {wanted!r}")
        elif waiting:
            raise RowFault(KIND, f"{name} {number} comes before {len(waiting)} of the calls have a result")
        else:
            waiting = [call.get("id") for call in message.get("tool_calls", ())]
