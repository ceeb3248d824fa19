"""Files of answers as they should be, and of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trueup.data.dialogue import Messages, split_answer, turns
from trueup.data.example import Example, Record
from trueup.data.faults import RowFault
from trueup.data.reading import answer_of, instruction_of, prompt_of, texts_of
from trueup.data.values import text_of


def _example(prompt: Messages, answer: dict[str, Any] | None) -> Example:
    return (
        Example(prompt) if answer is None else Example(prompt, answer["content"], tool_calls=answer.get("tool_calls"))
    )


def columns(prompt: str, completion: str) -> Callable[[Record], list[Example]]:
    """A prompt and its answer, in two columns."""

    def read(record: Record) -> list[Example]:
        context, answer = answer_of(record[completion], completion)
        asked = prompt_of(record[prompt], prompt)
        if context and texts_of(context) != texts_of(asked):
            raise RowFault("two prompts", f"{completion} holds a dialogue that does not begin with {prompt}")
        return [_example(asked, answer)]

    return read


def dialogue(field: str) -> Callable[[Record], list[Example]]:
    """A whole dialogue in one column."""

    def read(record: Record) -> list[Example]:
        return [_example(*split_answer(turns(record[field], field)))]

    return read


def alpaca(record: Record) -> list[Example]:
    """An instruction, maybe with an input, and its output."""
    return [Example(instruction_of(record, record.get("input")), text_of(record["output"], "output", "empty answer"))]


def self_instruct(record: Record) -> list[Example]:
    """An instruction with several inputs and outputs."""
    instances = record["instances"]
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise RowFault("not a dialogue", "instances is no list of {input, output}")
    return [
        Example(instruction_of(record, one.get("input")), text_of(one.get("output"), "output", "empty answer"))
        for one in instances
    ]


def text(record: Record) -> list[Example]:
    """A text without a prompt."""
    return [Example([], text_of(record["text"], "text"))]
