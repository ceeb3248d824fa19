"""Turns of a dialogue: whatever a file calls them, they become checked chat messages."""

from __future__ import annotations

import re
from typing import Any

Messages = list[dict[str, str]]  # role (system | user | assistant) and content

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
}
TRANSCRIPT = "\n\nHuman:"
SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class RowFault(ValueError):
    """A row that cannot be used. `kind` is what it is counted under, the message says it in full."""

    def __init__(self, kind: str, message: str = "") -> None:
        self.kind = kind
        super().__init__(message or kind)


def text_of(value: Any, name: str, kind: str = "no text") -> str:
    """The stripped text; numbers and truth values are written out. Raises RowFault when there is none."""
    if isinstance(value, str):
        if stripped := value.strip():
            return stripped
    elif isinstance(value, int | float):
        return str(value)
    elif value is not None:
        raise RowFault("not a text", f"{name} is of type {type(value).__name__}, expected text")
    raise RowFault(kind, f"{name} has no text")


def turns(value: Any, name: str) -> Messages:
    """Messages of a list of {role, content} or {from, value}: [system,] user, assistant, user, ...

    Raises RowFault on an unknown role, roles out of order, an empty turn, an image.
    """
    if not isinstance(value, list) or not value:
        raise RowFault("not a dialogue", f"{name} is no list of turns")
    messages = [_turn(turn, f"{name} {number}") for number, turn in enumerate(value, start=1)]
    _refuse_disorder(messages, name)
    return messages


def _turn(turn: Any, name: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise RowFault("not a dialogue", f"{name} is of type {type(turn).__name__}, expected role and content")
    said_by, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    role = ROLES.get(said_by.lower()) if isinstance(said_by, str) else None
    if role is None:
        raise RowFault("unknown role", f"{name} has the unknown role {said_by!r}; known: {', '.join(ROLES)}")
    if isinstance(content, list):
        content = _joined(content, name)
    kind = "empty assistant turn" if role == "assistant" else "no text"
    return {"role": role, "content": text_of(content, f"{name} ({role})", kind)}


def _joined(parts: list[Any], name: str) -> str:
    """The text of a message in parts. Raises RowFault when a part is an image or anything else but text."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = "an image" if kind and "image" in str(kind) else f"a part of type {kind}"
            raise RowFault(f"{what} in a message", f"{name} holds {what}; trueup reads text alone")
        texts.append(str(part.get("text") or ""))
    return "\n".join(texts)


def _refuse_disorder(messages: Messages, name: str) -> None:
    first = 1 if messages[0]["role"] == "system" else 0
    for number, message in enumerate(messages[first:]):
        expected = "assistant" if number % 2 else "user"
        if message["role"] != expected:
            found = f"{name} {first + number + 1} is the {message['role']}'s, expected the {expected}'s"
            raise RowFault("roles out of order", found)
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


def split_answer(messages: Messages) -> tuple[Messages, str | None]:
    """(messages up to the last user turn, the assistant's answer to it or None)."""
    if messages[-1]["role"] == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, None
