"""The formats of the field, told apart by the names of their fields, each read into one typed form."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.data.dialogue import TRANSCRIPT, Messages, RowFault, split_answer, text_of, transcript, turns

Record = dict[str, Any]
ANNOTATOR = re.compile(r"annotator\d+")
TRUTHS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


@dataclass(slots=True)
class Example:
    """What a row says. Which fields are set tells what it is good for.

    prompt alone: a prompt; prompt and completion: a demonstration; with `rejected`: a pair, `completion` being the
    chosen one; with `label`: a thumb; completion alone: plain text. `votes` are (for, against): people who chose
    `completion` and people who rejected it, or thumbs up and down.
    """

    prompt: Messages
    completion: str | None = None
    rejected: str | None = None
    label: bool | None = None
    votes: tuple[int, int] = (1, 0)


@dataclass(frozen=True)
class Format:
    """`fields` tell a row of it; `gives` is what it can be read as; `read` raises RowFault; a tie gives nothing."""

    name: str
    fields: frozenset[str]
    gives: frozenset[str]
    read: Callable[[Record], list[Example]]


def detect(record: Record) -> Format | None:
    """The first format whose fields the record has."""
    return next((known for known in FORMATS if known.fields <= record.keys()), None)


def _prompt(value: Any, name: str = "prompt") -> Messages:
    """A prompt given as text, transcript or messages. Raises RowFault when its last turn is the assistant's."""
    if isinstance(value, list):
        messages = turns(value, name)
    elif isinstance(value, str) and value.startswith(TRANSCRIPT):
        messages = transcript(value, name)
    else:
        return [{"role": "user", "content": text_of(value, name)}]
    if messages[-1]["role"] != "user":
        raise RowFault("roles out of order", f"{name} ends with the {messages[-1]['role']}'s turn, expected the user's")
    return messages


def _answer(value: Any, name: str) -> tuple[Messages, str]:
    """(the dialogue before it, the answer) of an answer given as text, transcript or messages."""
    if isinstance(value, list) and len(value) == 1:
        value = turns([{"role": "user", "content": "-"}, *value], name)[-1]["content"]
    if isinstance(value, list):
        context, answer = split_answer(turns(value, name))
    elif isinstance(value, str) and value.startswith(TRANSCRIPT):
        context, answer = split_answer(transcript(value, name))
    else:
        return [], text_of(value, name, "empty answer")
    if answer is None:
        raise RowFault("empty answer", f"{name} ends with the user's turn: no answer")
    return context, answer


def _demonstration(prompt: str, completion: str) -> Callable[[Record], list[Example]]:
    def read(record: Record) -> list[Example]:
        return [Example(_prompt(record[prompt], prompt), _answer(record[completion], completion)[1])]

    return read


def _dialogue(field: str) -> Callable[[Record], list[Example]]:
    def read(record: Record) -> list[Example]:
        return [Example(*split_answer(turns(record[field], field)))]

    return read


def _instruction(record: Record, more: Any) -> Messages:
    given = text_of(record["instruction"], "instruction")
    return [{"role": "user", "content": f"{given}\n\n{more}".strip() if more is not None else given}]


def _alpaca(record: Record) -> list[Example]:
    return [Example(_instruction(record, record.get("input")), text_of(record["output"], "output", "empty answer"))]


def _self_instruct(record: Record) -> list[Example]:
    instances = record["instances"]
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise RowFault("not a dialogue", "instances is no list of {input, output}")
    return [
        Example(_instruction(record, one.get("input")), text_of(one.get("output"), "output", "empty answer"))
        for one in instances
    ]


def _pair(record: Record) -> list[Example]:
    (before, chosen), (other, rejected) = _answer(record["chosen"], "chosen"), _answer(record["rejected"], "rejected")
    if before != other:
        raise RowFault("chosen and rejected answer different prompts")
    if chosen == rejected:
        raise RowFault("chosen and rejected are the same")
    if not before:
        if record.get("prompt") is None:
            raise RowFault("no prompt", "no prompt: neither a field of that name, nor turns in chosen and rejected")
        before = _prompt(record["prompt"])
    votes = (_count(record.get("votes_for", 1), "votes_for"), _count(record.get("votes_against", 0), "votes_against"))
    return [Example(before, chosen, rejected, votes=votes)]


def _judged(record: Record) -> list[Example]:
    """Two answers and what each annotator said: 1, 2, or 0 for a tie (PandaLM)."""
    answers = [text_of(record[name], name, "empty answer") for name in ("response1", "response2")]
    tally = {"0": 0, "1": 0, "2": 0}
    for name, verdict in record.items():
        if ANNOTATOR.fullmatch(name):
            if str(verdict) not in tally:
                raise RowFault("unknown verdict", f"{name} is {verdict!r}, expected 1, 2 or 0 for a tie")
            tally[str(verdict)] += 1
    first, second = tally["1"], tally["2"]
    if first == second:
        return []
    if answers[0] == answers[1]:
        raise RowFault("chosen and rejected are the same")
    chosen, rejected = answers if first > second else reversed(answers)
    votes = (max(first, second), min(first, second))
    return [Example(_instruction(record, record.get("input")), chosen, rejected, votes=votes)]


def _thumb(record: Record) -> list[Example]:
    label = record["label"]
    up = TRUTHS.get(label.strip().lower() if isinstance(label, str) else label) if _simple(label) else None
    if up is None:
        raise RowFault("unknown verdict", f"label is {label!r}, expected true or false")
    completion = _answer(record["completion"], "completion")[1]
    return [Example(_prompt(record["prompt"]), completion, label=up, votes=(int(up), int(not up)))]


def _simple(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _counted_thumbs(record: Record) -> list[Example]:
    up, down = _count(record["up"], "up"), _count(record["down"], "down")
    if up == down:
        return []
    completion = _answer(record["completion"], "completion")[1]
    return [Example(_prompt(record["prompt"]), completion, label=up > down, votes=(up, down))]


def _count(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise RowFault("unknown verdict", f"{name} is {value!r}, expected a count") from None


def _text(record: Record) -> list[Example]:
    return [Example([], text_of(record["text"], "text"))]


_TRAINS, _PREFERS = frozenset({"demonstrations", "prompts"}), frozenset({"preferences", "prompts"})
_ASKS, _TEXT = frozenset({"prompts"}), frozenset({"text"})


def _format(name: str, fields: str, gives: frozenset[str], read: Callable[[Record], list[Example]]) -> Format:
    return Format(name, frozenset(fields.split()), gives, read)


# In this order: a file may hold the fields of several formats, and preferences say more than the texts beside them.
FORMATS = (
    _format("judged pairs", "instruction response1 response2 annotator1", _PREFERS, _judged),
    _format("preference pairs, explicit prompt", "prompt chosen rejected", _PREFERS, _pair),
    _format("preference pairs, implicit prompt", "chosen rejected", _PREFERS, _pair),
    _format("KTO rows", "prompt completion label", _PREFERS, _thumb),
    _format("KTO rows, counted", "prompt completion up down", _PREFERS, _counted_thumbs),
    _format("chat messages", "messages", _TRAINS, _dialogue("messages")),
    _format("ShareGPT", "conversations", _TRAINS, _dialogue("conversations")),
    _format("prompt/completion", "prompt completion", _TRAINS, _demonstration("prompt", "completion")),
    _format("prompt/response", "prompt response", _TRAINS, _demonstration("prompt", "response")),
    _format("self-instruct", "instruction instances", _TRAINS, _self_instruct),
    _format("Alpaca", "instruction output", _TRAINS, _alpaca),
    _format("prompts", "prompt", _ASKS, lambda record: [Example(_prompt(record["prompt"]))]),
    _format("plain text", "text", _TEXT, _text),
)
FIELDS = sorted({field for known in FORMATS for field in known.fields} | {"input"})
