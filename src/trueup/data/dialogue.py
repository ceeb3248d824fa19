"""Turns of a dialogue: whatever a file calls them, they become checked chat messages."""

from __future__ import annotations

import re
from typing import Any

from trueup.data.faults import RowFault
from trueup.data.tools import calls_of, refuse_unanswered
from trueup.data.values import is_empty, is_missing, text_of

Messages = list[dict[str, Any]]  # role (system | user | assistant | tool), content (a text), and maybe tool_calls

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
}
TRANSCRIPT = "\n\nHuman:"
SPEAKER = re.compile(r"\n\n(Human|Assistant):")
AFTER = {"": ("user",), "user": ("assistant",), "assistant": ("user",), "tool": ("assistant", "tool")}


def turns(value: Any, name: str) -> Messages:
    """Messages of a list of {role, content} or {from, value}: [system,] user, assistant, user, ...

    After an assistant's tool calls come their results, of role tool, then the assistant. Raises RowFault on an unknown
    role, roles out of order, an empty turn, an image, calls without results.
    """
    if not isinstance(value, list) or not value:
        raise RowFault("not a dialogue", f"{name} is no list of turns")
    messages = [_turn(turn, f"{name} {number}") for number, turn in enumerate(value, start=1)]
    _refuse_disorder(messages, name)
    refuse_unanswered(messages, name)
    return messages


def _turn(turn: Any, name: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowFault("not a dialogue", f"{name} is of type {type(turn).__name__}, expected role and content")
    said_by, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    role = ROLES.get(said_by.lower()) if isinstance(said_by, str) else None
    if role is None:
        raise RowFault("unknown role", f"{name} has the unknown role {said_by!r}; known: {', '.join(ROLES)}")
    if not is_empty(turn.get("function_call")):
        raise RowFault("tool calls", f"{name} has a function_call; write it as tool_calls")
    if isinstance(content, list):
        content = _joined(content, name)
    if is_empty(calls := turn.get("tool_calls")):
        kind = "empty assistant turn" if role == "assistant" else "no text"
        message: dict[str, Any] = {"role": role, "content": text_of(content, f"{name} ({role})", kind)}
    elif role == "assistant":
        text = "" if is_missing(content) else text_of(content, name)
        message = {"role": role, "content": text, "tool_calls": calls_of(calls, f"{name}, call")}
    else:
        raise RowFault("tool calls", f"{name} has tool_calls, but is the {role}'s")
    if role == "tool":
        message |= {key: text_of(turn[key], f"{name} ({key})") for key in RESULT if not is_missing(turn.get(key))}
    return message


RESULT = ("tool_call_id", "name")  # what a tool's result may say of itself


def _joined(parts: list[Any], name: str) -> str:
    """The text of a message in parts. Raises RowFault when a part is an image or anything else but text."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = "an image" if isinstance(kind, str) and "image" in kind else f"a part of type {kind}"
            raise RowFault(f"{what[:40]} in a message", f"{name} holds {what}; trueup reads text alone")
        texts.append("" if is_missing(part.get("text")) else text_of(part["text"], name))
    return "\n".join(texts)


def _refuse_disorder(messages: Messages, name: str) -> None:
    first = 1 if messages[0]["role"] == "system" else 0
    before = ""
    for number, message in enumerate(messages[first:], start=first + 1):
        expected = ("tool",) if before == "calls" else AFTER[before]
        if message["role"] not in expected:
            found = f"{name} {number} is the {message['role']}'s, expected the {' or the '.join(expected)}'s"
            raise RowFault("roles out of order", found)
        before = "calls" if "tool_calls" in message else message["role"]
    if len(messages) == first:
        raise RowFault("no text", f"{name} holds a system message alone")


def transcript(text: str, name: str) -> Messages:
    r"""Messages of "\n\nHuman: ... \n\nAssistant: ..." (as in hh-rlhf); turns of one speaker in a row are joined.

    A last, empty "\n\nAssistant:" is where an answer goes: `transcript` leaves it out. Raises RowFault as `turns` does.
    """
    before, *parts = SPEAKER.split(text)
    if before.strip() or not parts:
        raise RowFault("not a dialogue", f'{name} does not begin with "\\n\\nHuman:"')
    messages: Messages = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{said.strip()}".strip()
        else:
            messages.append({"role": role, "content": said.strip()})
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
        messages.pop()
    for number, message in enumerate(messages, start=1):
        kind = "empty assistant turn" if message["role"] == "assistant" else "no text"
        text_of(message["content"], f"{name}, turn {number} ({message['role']})", kind)
    if not messages:
        raise RowFault("no text", f"{name} has no text")
    _refuse_disorder(messages, name)
    return messages


def split_answer(messages: Messages) -> tuple[Messages, dict[str, Any] | None]:
    """(messages up to the last one that is not the assistant's, the assistant's answer to it or None)."""
    if messages[-1]["role"] == "assistant":
        return messages[:-1], messages[-1]
    return messages, None
