"""The formats of the field, told apart by the names of their fields, each read into one typed form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trueup.data import demonstrated, judged, judgement_rows, traces
from trueup.data.example import Example, Record
from trueup.data.faults import RowFault
from trueup.data.judged import ANNOTATOR, RATED_BY
from trueup.data.reading import prompt_of, texts_of
from trueup.data.scores import Scores
from trueup.data.values import is_missing
from trueup.data.verdicts import SCORES

__all__ = ["FIELDS", "FORMATS", "SYSTEM", "TRACES", "Example", "Format", "Record", "detect", "prompt_is_repeated"]


@dataclass(frozen=True)
class Format:
    """`fields` tell a row of it; `more` are read where a row has them; `gives` is what it can be read as.

    `prompt_fields` are those a prompt is read from, and `people` the columns that each hold what one person said: a row
    has one of these at least. `read` raises RowFault; a tie gives nothing. Traces are read with their scores.
    """

    name: str
    fields: frozenset[str]
    gives: frozenset[str]
    read: Callable[[Record], list[Example]] | None
    more: frozenset[str]
    prompt_fields: frozenset[str]
    people: re.Pattern[str] | None = None
    trace: Callable[[Record, Scores], list[Example]] | None = None
    only: bool = False  # thumbs are never read as demonstrations: half of them are what not to say

    def fits(self, record: Record) -> bool:
        """Whether the record has the fields."""
        return self.fields <= record.keys() and (
            self.people is None or any(self.people.fullmatch(name) for name in record)
        )

    def examples(self, record: Record, scores: Scores) -> list[Example]:
        """What the row says. Raises RowFault."""
        if self.trace is not None:
            return self.trace(record, scores)
        return [] if self.read is None else self.read(record)

    def reads(self, name: str) -> bool:
        """Whether a column of this name is read."""
        return name in self.fields | self.more or bool(self.people and self.people.fullmatch(name))

    def labels(self, record: Record) -> Iterator[Any]:
        """What the row holds where thumbs are expected."""
        if "label" in self.fields:
            yield record["label"]
        elif self.people is ANNOTATOR and "completion" in self.fields:
            yield from (value for name, value in record.items() if ANNOTATOR.fullmatch(name) and not is_missing(value))

    def ratings(self, record: Record) -> Iterator[Any]:
        """What the row holds where ratings are expected."""
        if self.people is RATED_BY:
            yield from (value for name, value in record.items() if RATED_BY.fullmatch(name) and not is_missing(value))
        elif "rating" in self.fields or ("kind" in self.fields and record["kind"] == "rating"):
            yield record.get("rating")


def detect(record: Record, wanted: str | None = None) -> Format | None:
    """The first format whose fields the record has, and that gives what is `wanted`; else the first that it has.

    So of a file of pairs that also has whole dialogues (as UltraFeedback has `messages`), the dialogues are taken where
    demonstrations are wanted, and the scores of a chat log where preferences are.
    """
    found = [known for known in FORMATS if known.fits(record)]
    if not found or found[0].only or wanted is None:
        return found[0] if found else None
    return next((known for known in found if wanted in known.gives and not known.only), found[0])


def prompt_is_repeated(record: Record, example: Example) -> bool:
    """Whether the `prompt` beside whole dialogues says nothing else than they do."""
    given = record["prompt"]
    try:
        asked = texts_of(prompt_of(given))
    except RowFault:
        return False
    said = texts_of(example.prompt)
    return asked == said or (len(asked) == 1 and asked[0] in (said[0], said[-1]))


SYSTEM = ("system", "system_prompt")  # columns that hold the system message of a row
_TRAINS, _PREFERS = frozenset({"demonstrations", "prompts"}), frozenset({"preferences", "prompts"})
_ASKS, _TEXT, _SAYS = frozenset({"prompts"}), frozenset({"text"}), frozenset({"preferences"})
_SCORED = " ".join(["votes_for votes_against", *(name for pair in SCORES for name in pair)])


_WHO = " ".join(judged.WHO)
_JUDGED = "uid prompt_id project annotation_id a b completion completion_a completion_b up preferred rating text"
_IN_LOGS = "feedback score user user_id annotator timestamp updated_at created_at"
_LANGFUSE = "scores type parent_observation_id start_time end_time user_id parentObservationId startTime endTime userId"


def _format(
    name: str,
    fields: str,
    gives: frozenset[str],
    read: Callable[[Record], list[Example]] | None,
    prompt_fields: str,
    more: str = "",
    **others: Any,
) -> Format:
    always = "" if gives is _TEXT else " ".join(SYSTEM) + " tools"
    return Format(
        name,
        frozenset(fields.split()),
        gives,
        read,
        frozenset(f"{more} {always}".split()),
        frozenset(f"{prompt_fields} {always}".split()),
        **others,
    )


def _trace(name: str, fields: str, read: Callable[[Record, Scores], list[Example]], more: str) -> Format:
    return _format(name, fields, _SAYS, None, fields, more, trace=read)


# In this order: a file may hold the fields of several formats, and preferences say more than the texts beside them.
FORMATS = (
    _format(
        *("judgements", "kind annotator prompt", _PREFERS, judgement_rows.judgement, "prompt"),
        more=f"{_JUDGED} {_WHO}",
        only=True,
    ),
    _format(
        *("judged pairs", "instruction response1 response2", _PREFERS, judged.judged_pair, "instruction input"),
        more="input annotator1",
        people=ANNOTATOR,
    ),
    _format(
        *("judged pairs", "prompt response1 response2", _PREFERS, judged.judged_pair, "prompt", "annotator1"),
        people=ANNOTATOR,
    ),
    _format(
        *("preference pairs, explicit prompt", "prompt chosen rejected", _PREFERS, judged.pair, "prompt chosen"),
        more=f"{_SCORED} {_WHO}",
    ),
    _format(
        *("preference pairs, implicit prompt", "chosen rejected", _PREFERS, judged.pair, "chosen"),
        more=f"{_SCORED} {_WHO}",
    ),
    _format("KTO rows", "prompt completion label", _PREFERS, judged.thumb, "prompt", _WHO, only=True),
    _format("KTO rows, counted", "prompt completion up down", _PREFERS, judged.counted_thumbs, "prompt", only=True),
    _format(
        *("thumbs by person", "prompt completion", _PREFERS, judged.thumbs_by_person, "prompt", "annotator1"),
        people=ANNOTATOR,
        only=True,
    ),
    _format("ratings", "prompt completion rating", _PREFERS, judged.rating, "prompt", _WHO),
    _format(*("ratings by person", "prompt completion", _PREFERS, judged.ratings_by_person, "prompt"), people=RATED_BY),
    _trace("chat log with feedback", "messages feedback", traces.chat_log, f"{_IN_LOGS} choices"),
    _trace("chat log with feedback", "messages score", traces.chat_log, f"{_IN_LOGS} choices"),
    _trace("request log with feedback", "request response feedback", traces.request_log, _IN_LOGS),
    _trace("request log with feedback", "request response score", traces.request_log, _IN_LOGS),
    _trace("Langfuse observations", "id trace_id type input output", traces.langfuse, _LANGFUSE),
    _trace("Langfuse observations", "id traceId type input output", traces.langfuse, _LANGFUSE),
    _trace("LangSmith runs", "id run_type inputs outputs", traces.langsmith, "feedback feedback_stats"),
    _format("chat messages", "messages", _TRAINS, demonstrated.dialogue("messages"), "messages"),
    _format("ShareGPT", "conversations", _TRAINS, demonstrated.dialogue("conversations"), "conversations"),
    _format("prompt/completion", "prompt completion", _TRAINS, demonstrated.columns("prompt", "completion"), "prompt"),
    _format("prompt/response", "prompt response", _TRAINS, demonstrated.columns("prompt", "response"), "prompt"),
    _format("self-instruct", "instruction instances", _TRAINS, demonstrated.self_instruct, "instruction instances"),
    _format("Alpaca", "instruction output", _TRAINS, demonstrated.alpaca, "instruction input", "input"),
    _trace("Langfuse traces", "id timestamp input output", traces.langfuse, _LANGFUSE),
    _format("prompts", "prompt", _ASKS, lambda record: [Example(prompt_of(record["prompt"]))], "prompt"),
    _format("plain text", "text", _TEXT, demonstrated.text, ""),
    _trace("chat log with feedback", "messages", traces.chat_log, f"{_IN_LOGS} choices"),  # in its turns, or none
    _trace("request log with feedback", "request response", traces.request_log, _IN_LOGS),
)
_OWN = [known for known in FORMATS if not known.fields & {"id", "kind"}]  # programs write the others
TRACES = frozenset(known.name for known in FORMATS if known.trace is not None)
FIELDS = sorted({field for known in _OWN for field in known.fields | known.more})
