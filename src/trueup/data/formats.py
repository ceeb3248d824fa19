"""The formats of the field, told apart by the names of their fields, each read into one typed form."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.data.dialogue import TRANSCRIPT, Messages, split_answer, transcript, turns
from trueup.data.faults import RowFault
from trueup.data.tools import Tool
from trueup.data.values import is_missing, same_text, text_of
from trueup.data.verdicts import SCORES, as_number, count_of, label_of, scores_differ

Record = dict[str, Any]
ANNOTATOR = re.compile(r"annotator\d+")


@dataclass(slots=True)
class Example:
    """What a row says. Which fields are set tells what it is good for.

    prompt alone: a prompt; prompt and completion: a demonstration; with `rejected`: a pair, `completion` being the
    chosen one; with `label`: a thumb; completion alone: plain text. `votes` are (for, against): people who chose
    `completion` and people who rejected it, or thumbs up and down. `tool_calls` are part of the completion, whose text
    may then be empty; `tools` are the functions that could be called.
    """

    prompt: Messages
    completion: str | None = None
    rejected: str | None = None
    label: bool | None = None
    votes: tuple[int, int] = (1, 0)
    tools: list[Tool] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def answer(self) -> dict[str, Any]:
        """The completion as the assistant's message."""
        calls = {"tool_calls": self.tool_calls} if self.tool_calls else {}
        return {"role": "assistant", "content": self.completion or ""} | calls

    @property
    def has_tools(self) -> bool:
        """Whether a chat template must know of tools to write this row."""
        return bool(self.tools or self.tool_calls) or any(
            turn["role"] == "tool" or "tool_calls" in turn for turn in self.prompt
        )


@dataclass(frozen=True)
class Format:
    """`fields` tell a row of it; `more` are read where a row has them; `gives` is what it can be read as.

    `prompt_fields` are those a prompt is read from. `read` raises RowFault; a tie gives nothing.
    """

    name: str
    fields: frozenset[str]
    gives: frozenset[str]
    read: Callable[[Record], list[Example]]
    more: frozenset[str]
    prompt_fields: frozenset[str]


def detect(record: Record, wanted: str | None = None) -> Format | None:
    """The first format whose fields the record has.

    Of a file of pairs that also has whole dialogues (as UltraFeedback has `messages`), the dialogues are taken where
    demonstrations are wanted. Thumbs are never read as demonstrations: half of them are what not to say.
    """
    found = [known for known in FORMATS if known.fields <= record.keys()]
    if found and "rejected" in found[0].fields and wanted is not None:
        return next((known for known in found if wanted in known.gives and "label" not in known.fields), found[0])
    return found[0] if found else None


def _prompt(value: Any, name: str = "prompt") -> Messages:
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


def _answer(value: Any, name: str) -> tuple[Messages, dict[str, Any]]:
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


def _spoken(value: Any, name: str) -> tuple[Messages, str]:
    """The same for an answer that people judge: text alone. Raises RowFault where it calls tools."""
    context, answer = _answer(value, name)
    if "tool_calls" in answer:
        raise RowFault("tool calls", f"{name} calls a tool; only texts are judged")
    return context, answer["content"]


def _example(prompt: Messages, answer: dict[str, Any] | None) -> Example:
    return (
        Example(prompt) if answer is None else Example(prompt, answer["content"], tool_calls=answer.get("tool_calls"))
    )


def _demonstration(prompt: str, completion: str) -> Callable[[Record], list[Example]]:
    def read(record: Record) -> list[Example]:
        context, answer = _answer(record[completion], completion)
        asked = _prompt(record[prompt], prompt)
        if context and _texts(context) != _texts(asked):
            raise RowFault("two prompts", f"{completion} holds a dialogue that does not begin with {prompt}")
        return [_example(asked, answer)]

    return read


def _dialogue(field: str) -> Callable[[Record], list[Example]]:
    def read(record: Record) -> list[Example]:
        return [_example(*split_answer(turns(record[field], field)))]

    return read


def _texts(messages: Messages) -> list[str]:
    return [same_text(message["content"]) for message in messages if message["role"] != "system"]


def _instruction(record: Record, more: Any) -> Messages:
    given = text_of(record["instruction"], "instruction")
    return [{"role": "user", "content": given if is_missing(more) else f"{given}\n\n{text_of(more, 'input')}"}]


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
    """Two answers, the better one named. One score for both is no preference."""
    (before, chosen), (other, rejected) = _spoken(record["chosen"], "chosen"), _spoken(record["rejected"], "rejected")
    if before != other:
        raise RowFault("chosen and rejected answer different prompts")
    if chosen == rejected:
        raise RowFault("chosen and rejected are the same")
    if not before:
        if is_missing(record.get("prompt")):
            raise RowFault("no prompt", "no prompt: neither a field of that name, nor turns in chosen and rejected")
        before = _prompt(record["prompt"])
    if not scores_differ(record):
        return []
    votes = tuple(
        other if is_missing(given := record.get(name)) else count_of(given, name)
        for name, other in (("votes_for", 1), ("votes_against", 0))
    )
    return [Example(before, chosen, rejected, votes=(votes[0], votes[1]))]


def prompt_is_repeated(record: Record, example: Example) -> bool:
    """Whether the `prompt` beside whole dialogues says nothing else than they do."""
    given = record["prompt"]
    try:
        asked = _texts(_prompt(given))
    except RowFault:
        return False
    said = _texts(example.prompt)
    return asked == said or (len(asked) == 1 and asked[0] in (said[0], said[-1]))


def _judged(record: Record) -> list[Example]:
    """Two answers and what each annotator said: 1, 2, or 0 for a tie (PandaLM)."""
    answers = [text_of(record[name], name, "empty answer") for name in ("response1", "response2")]
    tally = {0: 0, 1: 0, 2: 0}
    for name, verdict in record.items():
        if ANNOTATOR.fullmatch(name) and not is_missing(verdict):
            number = as_number(verdict)
            if number not in tally:
                raise RowFault("unknown verdict", f"{name} is {str(verdict)[:40]!r}, expected 1, 2 or 0 for a tie")
            tally[int(number)] += 1
    first, second = tally[1], tally[2]
    if first == second:
        return []
    if answers[0] == answers[1]:
        raise RowFault("chosen and rejected are the same")
    chosen, rejected = answers if first > second else reversed(answers)
    votes = (max(first, second), min(first, second))
    return [Example(_instruction(record, record.get("input")), chosen, rejected, votes=votes)]


def _thumb(record: Record) -> list[Example]:
    up = label_of(record["label"])
    completion = _spoken(record["completion"], "completion")[1]
    return [Example(_prompt(record["prompt"]), completion, label=up, votes=(int(up), int(not up)))]


def _counted_thumbs(record: Record) -> list[Example]:
    up, down = count_of(record["up"], "up"), count_of(record["down"], "down")
    if up == down:
        return []
    completion = _spoken(record["completion"], "completion")[1]
    return [Example(_prompt(record["prompt"]), completion, label=up > down, votes=(up, down))]


def _text(record: Record) -> list[Example]:
    return [Example([], text_of(record["text"], "text"))]


SYSTEM = ("system", "system_prompt")  # columns that hold the system message of a row
_TRAINS, _PREFERS = frozenset({"demonstrations", "prompts"}), frozenset({"preferences", "prompts"})
_ASKS, _TEXT = frozenset({"prompts"}), frozenset({"text"})
_SCORED = " ".join(["votes_for votes_against", *(name for pair in SCORES for name in pair)])


def _format(
    name: str,
    fields: str,
    gives: frozenset[str],
    read: Callable[[Record], list[Example]],
    prompt_fields: str,
    more: str = "",
) -> Format:
    always = "" if gives is _TEXT else " ".join(SYSTEM) + " tools"
    return Format(
        name,
        frozenset(fields.split()),
        gives,
        read,
        frozenset(f"{more} {always}".split()),
        frozenset(f"{prompt_fields} {always}".split()),
    )


# In this order: a file may hold the fields of several formats, and preferences say more than the texts beside them.
FORMATS = (
    _format(
        "judged pairs", "instruction response1 response2 annotator1", _PREFERS, _judged, "instruction input", "input"
    ),
    _format("preference pairs, explicit prompt", "prompt chosen rejected", _PREFERS, _pair, "prompt chosen", _SCORED),
    _format("preference pairs, implicit prompt", "chosen rejected", _PREFERS, _pair, "chosen", _SCORED),
    _format("KTO rows", "prompt completion label", _PREFERS, _thumb, "prompt"),
    _format("KTO rows, counted", "prompt completion up down", _PREFERS, _counted_thumbs, "prompt"),
    _format("chat messages", "messages", _TRAINS, _dialogue("messages"), "messages"),
    _format("ShareGPT", "conversations", _TRAINS, _dialogue("conversations"), "conversations"),
    _format("prompt/completion", "prompt completion", _TRAINS, _demonstration("prompt", "completion"), "prompt"),
    _format("prompt/response", "prompt response", _TRAINS, _demonstration("prompt", "response"), "prompt"),
    _format("self-instruct", "instruction instances", _TRAINS, _self_instruct, "instruction instances"),
    _format("Alpaca", "instruction output", _TRAINS, _alpaca, "instruction input", "input"),
    _format("prompts", "prompt", _ASKS, lambda record: [Example(_prompt(record["prompt"]))], "prompt"),
    _format("plain text", "text", _TEXT, _text, ""),
)
FIELDS = sorted({field for known in FORMATS for field in known.fields | known.more})
