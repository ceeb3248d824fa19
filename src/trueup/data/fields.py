"""What of a row is read and what is not: columns, and keys inside turns, that no format of ours knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trueup.data.dialogue import RESULT
from trueup.data.faults import RowFault
from trueup.data.formats import SYSTEM, Example, Format, Record
from trueup.data.tools import tools_of
from trueup.data.values import READS_LIKE_MISSING, is_empty, is_missing, list_in, text_of

DIALOGUES = frozenset({"messages", "conversations", "prompt", "completion", "response", "chosen", "rejected"})
LISTS = frozenset({"messages", "conversations", "instances"})  # of which a text can only be a list written as one
PICTURES = frozenset({"image", "images", "video", "videos", "audio", "audios"})


def unfolded(record: Record) -> Record:
    """The record with lists that were written as texts (by pandas, into a CSV file) read. Raises RowFault."""
    found = {
        name: value
        for name in record.keys() & (DIALOGUES | LISTS)
        if isinstance(text := record[name], str) and (value := list_in(text, name, always=name in LISTS)) is not None
    }
    return record | found if found else record


def with_system_and_tools(record: Record, example: Example) -> Example:
    """The example with the row's `system` (or `system_prompt`) and `tools` columns.

    Raises RowFault where the row has two system messages that differ, or pictures beside its text.
    """
    for name in record.keys() & PICTURES:
        if not is_empty(record[name]):
            raise RowFault("an image in a message", f"{name} is set; trueup reads text alone")
    if not example.prompt:
        return example
    if not is_empty(given := record.get("tools")):
        example.tools = tools_of(given, "tools")
    texts = {text_of(record[name], name) for name in SYSTEM if not is_missing(record.get(name))}
    own = example.prompt[0]["role"] == "system"
    if own and texts:
        texts.add(example.prompt[0]["content"])
    if len(texts) > 1:
        raise RowFault("two system messages", "the row has two system messages that differ")
    if texts and not own:
        example.prompt = [{"role": "system", "content": texts.pop()}, *example.prompt]
    return example


def unused(record: Record, known: Format, wanted: str | None) -> list[str]:
    """Names of what `known` does not read: `source`, or `messages[].weight` for a key of a turn.

    Where prompts are wanted, columns that hold answers are not read either. Missing values are nothing to read.
    """
    found = []
    for name, value in record.items():
        if not (name in known.prompt_fields if wanted == "prompts" else known.reads(name)):
            if not is_empty(value):
                found.append(name)
        elif isinstance(value, list) and name in DIALOGUES:
            found += _unused_keys(value, f"{name}[]", known)
        elif name == "instances" and isinstance(value, list):
            found += [f"{name}[].{key}" for one in value if isinstance(one, dict) for key in _left(one, INSTANCE)]
    return list(dict.fromkeys(found))


INSTANCE = frozenset({"input", "output"})
PART = frozenset({"type", "text"})
USUAL = {"role", "content"}


def _unused_keys(turns: list[Any], name: str, known: Format) -> Iterator[str]:
    for turn in turns:
        if not isinstance(turn, dict) or (turn.keys() == USUAL and isinstance(turn["content"], str)):
            continue
        used = {"role" if "role" in turn else "from", "content" if "content" in turn else "value"}
        used |= {"feedback", "score"} if known.trace is not None else set()
        used |= {"tool_calls"} | (set(RESULT) if turn.get("role", turn.get("from")) == "tool" else set())
        yield from (f"{name}.{key}" for key in _left(turn, used))
        content = turn.get("content", turn.get("value"))
        if isinstance(content, list):
            parts = (part for part in content if isinstance(part, dict))
            yield from (f"{name}.content[].{key}" for part in parts for key in _left(part, PART))


def _left(value: dict[str, Any], used: frozenset[str] | set[str]) -> Iterator[str]:
    return (str(key) for key in value if key not in used and not is_empty(value[key]))


def reads_like_missing(example: Example) -> str:
    """A whole text of the example that is what programs write for a missing value, such as nan; empty if none is."""
    texts = [turn["content"] for turn in example.prompt] + [example.completion or "", example.rejected or ""]
    last_parts = (
        end.rpartition("\n\n")[2] if "\n\n" in (end := text[-8:]) else text for text in texts
    )  # Alpaca's input
    return next((part for part in last_parts if part.casefold() in READS_LIKE_MISSING), "")
