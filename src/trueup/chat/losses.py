"""What a chat template leaves out of a conversation. Pure functions on texts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]


def left_out(
    before: Sequence[Message], message: Message, tools: list[dict[str, Any]] | None, *, whole: str, answer: str
) -> tuple[str, ...]:
    """The kinds (keys of `tokens.KINDS`) of what is missing in `whole`, the templated conversation.

    `before` are the messages of the prompt, `message` is the answer and `answer` the part of `whole` it is in. White
    space does not count, but where the answer's own is lost that is a kind of its own.
    """
    found = set()
    squeezed = _squeeze(whole)
    for earlier in before:
        if not _is_in(earlier.get("content"), squeezed):
            found.add({"system": "system", "assistant": "history"}.get(earlier["role"], "lost"))
        if not all(_is_in(part, squeezed) for part in _parts_of_calls(earlier)):
            found.add("calls")
    if not all(_is_in(part, squeezed) for tool in tools or () for part in [tool.get("function", tool).get("name")]):
        found.add("tools")
    inside = _squeeze(answer)
    if not _is_in(message.get("content"), inside):
        found.add("answer_lost")
    elif isinstance(message.get("content"), str) and message["content"] not in answer:
        found.add("space")
    if not all(_is_in(part, inside) for part in _parts_of_calls(message)):
        found.add("calls")
    return tuple(sorted(found))


def _is_in(value: Any, squeezed: str) -> bool:
    """True where the text of `value` is in a text without white space, as it is or as JSON writes it."""
    if value is None or isinstance(value, list | dict):
        return True
    texts = (str(value), json.dumps(value, ensure_ascii=False).strip('"'), json.dumps(value).strip('"'))
    return any(_squeeze(text) in squeezed for text in texts)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _parts_of_calls(message: Message) -> Iterator[Any]:
    """The names and the arguments, keys and values, of a message's tool calls."""
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        yield function.get("name")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            with contextlib.suppress(json.JSONDecodeError):
                arguments = json.loads(arguments)
        yield from _leaves(arguments)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
