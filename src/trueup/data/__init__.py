"""The user's files as rows for the stages, every fault of a source at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from trueup.data.dialogue import Messages
from trueup.data.faults import BROKEN
from trueup.data.sources import Reader, refuse, unusable, weighted
from trueup.errors import DataError

if TYPE_CHECKING:
    from trueup.run.run_file import DataConfig

Row = dict[str, Any]


def read_demonstrations(data: DataConfig, seed: int = 0) -> list[Row]:
    """Rows of {id, messages}, the last message the assistant's; a source of weight 2 gives each row twice.

    Raises DataError when `data.demonstrations` is not set, or naming every faulty line.
    """
    rows = []
    for reader in _readers(data, "demonstrations", "demonstrations"):
        for _, example in weighted(reader, seed):
            answer = {"role": "assistant", "content": str(example.completion)}
            messages = [*in_context(data, example.prompt), answer]
            rows.append({"id": identify(messages), "messages": messages})
        refuse(reader)
    return rows


def read_prompts(data: DataConfig, field: str = "prompts", seed: int = 0) -> list[Row]:
    """Rows of {id, messages}, the last message the user's; a repeated prompt is kept once.

    `field` is prompts or held_out. Raises DataError as `read_demonstrations` does.
    """
    rows = {}
    for reader in _readers(data, field, "prompts"):
        for _, example in weighted(reader, seed):
            messages = in_context(data, example.prompt)
            name = identify(messages)
            rows[name] = {"id": name, "messages": messages}
        refuse(reader)
    return list(rows.values())


def read_preferences(data: DataConfig, seed: int = 0) -> tuple[list[Row], dict[str, int]]:
    """(rows, counts of what could not be used and why) of the preferences the user already has.

    Rows of {prompt_id, messages, completion, rejected, votes}: `rejected` is None for a thumb; `votes` counts people
    (for, against) `completion`. Raises DataError on a broken file; a row that says nothing usable is counted.
    """
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for reader in _readers(data, "preferences", "preferences"):
        for _, example in weighted(reader, seed):
            messages = in_context(data, example.prompt)
            judged = {"completion": example.completion, "rejected": example.rejected, "votes": example.votes}
            rows.append({"prompt_id": identify(messages), "messages": messages} | judged)
        refuse(reader, BROKEN)
        left_out += unusable(reader)
    return rows, dict(left_out)


def in_context(data: DataConfig, prompt: Messages) -> Messages:
    """System message, few-shot turns, prompt. A row's own system message stands in place of the run file's."""
    own = prompt[0]["role"] == "system"
    system = prompt[:1] if own else [{"role": "system", "content": data.system}] if data.system else []
    shots = [
        {"role": role, "content": text}
        for shot in data.few_shot
        for role, text in (("user", shot.prompt), ("assistant", shot.response))
    ]
    return [*system, *shots, *(prompt[1:] if own else prompt)]


def identify(messages: Messages) -> str:
    """A name for these messages: 16 hex digits of the SHA-256 of their JSON."""
    canonical = json.dumps(messages, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _readers(data: DataConfig, field: str, wanted: str) -> list[Reader]:
    sources = data.sources(field)
    if not sources:
        raise DataError(
            f"data.{field}", found="not set", expected="a file, a folder, or a list of them", next_step="set it"
        )
    return [Reader(source, wanted) for source in sources]
