"""The user's files as rows for the stages, every fault of a source at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueup.data.dialogue import Messages
from trueup.data.faults import BROKEN
from trueup.data.names import refuse_alike
from trueup.data.report import ReadReport
from trueup.data.sources import Reader, refuse, unusable, weighted
from trueup.data.values import same_text
from trueup.errors import DataError

if TYPE_CHECKING:
    from trueup.data.formats import Example
    from trueup.run.data_config import DataConfig

Row = dict[str, Any]


def read_demonstrations(
    data: DataConfig, seed: int = 0, report: ReadReport | None = None, *, takes_tools: bool = False
) -> list[Row]:
    """Rows of {id, messages}, the last message the assistant's; a source of weight 2 gives each row twice.

    A row with tools also has `tools`, and its messages `tool_calls`; they are refused unless the caller `takes_tools`,
    since a template that does not know of them would leave the calls out. Raises DataError when `data.demonstrations`
    is not set, or naming every faulty line. `report` is filled.
    """
    rows = []
    report = ReadReport() if report is None else report
    for reader in _readers(data, "demonstrations", "demonstrations"):
        for place, example in weighted(reader, seed):
            if example.has_tools and not takes_tools:
                raise _tools_refused(reader, place, "demonstrations")
            messages = [*in_context(data, example.prompt), example.answer]
            tools = {"tools": example.tools} if example.tools else {}
            rows.append({"id": identify(messages, example.tools), "messages": messages} | tools)
        refuse(reader)
        report.add(reader, keeps_other_turns=data.train_on == "all")
    report.finish("demonstrations", len(rows), len({row["id"] for row in rows}))
    return rows


def read_prompts(
    data: DataConfig, field: str = "prompts", seed: int = 0, report: ReadReport | None = None
) -> list[Row]:
    """Rows of {id, messages}, the last message the user's; a repeated prompt is kept once.

    `field` is prompts or held_out. Raises DataError as `read_demonstrations` does. `report` is filled.
    """
    rows: dict[str, Row] = {}
    report = ReadReport() if report is None else report
    for reader in _readers(data, field, "prompts"):
        for place, example in weighted(reader, seed):
            if example.has_tools:
                raise _tools_refused(reader, place, field)
            messages = in_context(data, example.prompt)
            name = identify(messages)
            report.left_out["prompt repeated"] += name in rows
            rows[name] = {"id": name, "messages": messages}
        refuse(reader)
        report.add(reader)
    report.finish(field, len(rows), len(rows))
    return list(rows.values())


def read_preferences(
    data: DataConfig, seed: int = 0, report: ReadReport | None = None
) -> tuple[list[Row], dict[str, int]]:
    """(rows, counts of what could not be used and why) of the preferences the user already has.

    Rows of {prompt_id, messages, completion, rejected, votes, verdicts, sides, one_question}: `rejected` is None for
    what is said of one answer; `votes` counts people (for, against) `completion`, and the others are as in `Example`,
    of which those that are barred are here too where people are told apart. Raises DataError on a broken file, and when
    no row says anything usable; other rows that say nothing usable are counted. `report` is filled.
    """
    rows: list[Row] = []
    report, people = ReadReport() if report is None else report, Counter[str]()
    for reader in _readers(data, "preferences", "preferences", keeps_barred=True):
        for place, example in weighted(reader, seed):
            if example.has_tools:
                raise _tools_refused(reader, place, "preferences")
            messages = in_context(data, example.prompt)
            names = ("completion", "rejected", "votes", "verdicts", "sides", "one_question")
            judged = {name: getattr(example, name) for name in names}
            rows.append({"prompt_id": identify(messages), "messages": messages} | judged)
        refuse(reader, BROKEN)
        report.add(reader)
        report.left_out += unusable(reader)
        people += reader.names
    refuse_alike(people, "data.preferences")
    if not rows:
        reasons = ", ".join(f"{why}: {count}" for why, count in report.left_out.items())
        raise DataError(
            "data.preferences", found=f"no usable preference ({reasons})", next_step="trueup data check RUN.yaml"
        )
    report.finish("preferences", len(rows), len({row["prompt_id"] for row in rows}))
    return rows, dict(report.left_out)


def _tools_refused(reader: Reader, place: tuple[int, int], field: str) -> DataError:
    return DataError(
        f"{reader.source.path}, {reader.place(place)}",
        found=f"tools or tool calls, which data.{field} cannot have here",
        expected="rows of text alone",
        next_step="leave out the rows with tools, tool_calls, or turns of role tool",
    )


def in_context(data: DataConfig, prompt: Messages) -> Messages:
    """System message, few-shot turns, prompt. A row's own system message replaces the run file's.

    A prompt that begins with the few-shot turns, as in traces and in exported labels, has them already.
    """
    own = prompt[0]["role"] == "system"
    system = prompt[:1] if own else [{"role": "system", "content": data.system}] if data.system else []
    shots = [
        {"role": role, "content": text}
        for shot in data.few_shot
        for role, text in (("user", shot.prompt), ("assistant", shot.response))
    ]
    rest = prompt[1:] if own else prompt
    return [*system, *([] if shots == rest[: len(shots)] else shots), *rest]


def identify(messages: Messages, tools: list[Any] | None = None) -> str:
    """A name for these messages (and tools): 16 hex digits of the SHA-256 of their JSON."""
    canonical = json.dumps([messages, tools] if tools else messages, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def asked(example: Example, *, every_turn: bool = False) -> Iterator[str]:
    """The prompt in the form in which prompts are compared, without its system message.

    With `every_turn` also what was asked before each earlier answer of the dialogue.
    """
    turns = [turn for turn in example.prompt if turn["role"] != "system"]
    for number, turn in enumerate(turns, start=1):
        if number == len(turns) or (every_turn and turn["role"] == "user"):
            yield asked_by(turns[:number])


def asked_by(messages: Messages) -> str:
    """The prompt that ends with the last of these messages, in the form in which prompts are compared."""
    return same_text("\n".join(turn["content"] for turn in messages if turn["role"] != "system"))


def _readers(data: DataConfig, field: str, wanted: str, *, keeps_barred: bool = False) -> list[Reader]:
    sources = data.sources(field)
    if not sources:
        raise DataError(
            f"data.{field}", found="not set", expected="a file, a folder, or a list of them", next_step="set it"
        )
    return [Reader(source, wanted, keeps_barred=keeps_barred) for source in sources]
