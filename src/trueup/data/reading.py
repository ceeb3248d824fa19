"""A prompt and an answer in each of the ways that files write them: text, transcript, or messages."""

from __future__ import annotations

from typing import Any

from trueup.data.dialogue import TRANSCRIPT, Messages, split_answer, transcript, turns
from trueup.data.example import Record
from trueup.data.faults import RowFault
from trueup.data.values import is_missing, same_text, text_of


def prompt_of(value: Any, name: str = "prompt") -> Messages:
    """A prompt given as text, transcript or messages. Raises RowFault when its last turn is the assistant's."""
    if isinstance(value, list):
        messages = turns(value, name)
    elif isinstance(value, str) and value.startswith(TRANSCRIPT):
        messages = transcript(value, name)
    else:
        return [{"role": "user", "content": text_of(value, name)}]
    if messages[-1]["role"] == "assistant":
        raise RowFault("roles out of order", f"{name} ends with the {messages[-1]['role']}'s turn, expected the user's")
    return messages


def answer_of(value: Any, name: str) -> tuple[Messages, dict[str, Any]]:
    """(the dialogue before it, the assistant's message) of an answer given as text, transcript or messages."""
    if isinstance(value, list) and len(value) == 1:
        return [], turns([{"role": "user", "content": "-"}, *value], name)[-1]
    if isinstance(value, list):
        context, answer = split_answer(turns(value, name))
    elif isinstance(value, str) and value.startswith(TRANSCRIPT):
        context, answer = split_answer(transcript(value, name))
    else:
        return [], {"content": text_of(value, name, "empty answer")}
    if answer is None:
        raise RowFault("empty answer", f"{name} ends with the user's turn: no answer")
    return context, answer


def spoken_of(value: Any, name: str) -> tuple[Messages, str]:
    """The same for an answer that people judge: text alone. Raises RowFault where it calls tools."""
    context, answer = answer_of(value, name)
    if "tool_calls" in answer:
        raise RowFault("tool calls", f"{name} calls a tool; only texts are judged")
    return context, answer["content"]


def texts_of(messages: Messages) -> list[str]:
    """Each turn but the system's, in the form in which texts are compared."""
    return [same_text(message["content"]) for message in messages if message["role"] != "system"]


def instruction_of(record: Record, more: Any) -> Messages:
    """An instruction, and the input it is about where there is one, as a prompt of one turn."""
    if is_missing(record["instruction"]) and not is_missing(more):
        return [{"role": "user", "content": text_of(more, "input")}]
    given = text_of(record["instruction"], "instruction")
    return [{"role": "user", "content": given if is_missing(more) else f"{given}\n\n{text_of(more, 'input')}"}]
