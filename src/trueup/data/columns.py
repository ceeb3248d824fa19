"""Columns of a file under our names, and what is said where they fit none of the formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rapidfuzz import process

from trueup.data.formats import FIELDS, Format, Record
from trueup.errors import DataError

ALSO_CALLED = {  # what other files call our columns
    "prompt": ("question", "query", "input", "user", "human", "request", "instruction", "q", "text"),
    "response": ("answer", "reply", "output", "completion", "assistant", "response", "target", "a"),
    "chosen": ("preferred", "accepted", "winner", "better", "good"),
    "rejected": ("dispreferred", "declined", "loser", "worse", "bad"),
    "rating": ("stars", "star", "grade", "points"),
    "label": ("score", "rating", "thumb", "feedback", "verdict", "vote"),
}
ALSO_CALLED["output"] = ("response", *ALSO_CALLED["response"])
ALSO_CALLED["input"] = ("context",)
ALSO_CALLED["completion"] = ALSO_CALLED["response"]
ALPACA, OPTIONAL = ("instruction", "input", "output"), {"input"}
USUAL = {
    "demonstrations": ("prompt", "response"),
    "prompts": ("prompt",),
    "preferences": ("prompt", "chosen", "rejected"),
}


def renamed(record: Record, columns: Mapping[str, str]) -> Record:
    """The file's names become ours; a column that is mapped away is not seen under its old name."""
    present = {ours: theirs for ours, theirs in columns.items() if theirs in record}
    taken = {*present, *present.values()}
    kept = {name: value for name, value in record.items() if name not in taken}
    return kept | {ours: record[theirs] for ours, theirs in present.items()}


def unknown(path: Path, record: Record, wanted: str | None, columns: Mapping[str, str]) -> DataError:
    """For a file whose columns are those of no format."""
    return DataError(
        str(path),
        found=f"columns {_names(record, columns)}: {_lost(record, columns)}no known format",
        expected=_expected(wanted),
        next_step=_hint(record, wanted, columns),
    )


def cannot_give(path: Path, record: Record, found: Format, wanted: str, columns: Mapping[str, str]) -> DataError:
    """For a file of another format than is wanted, such as prompts without answers."""
    return DataError(
        str(path),
        found=f"{found.name} (columns {_names(record, columns)}): {_lost(record, columns)}no {wanted}",
        expected=_expected(wanted),
        next_step=_hint(record, wanted, columns),
    )


def _expected(wanted: str | None) -> str:
    usual = ", ".join(USUAL[wanted or "demonstrations"])
    return f"such as {usual}; docs/data.md lists all formats"


def _names(record: Record, columns: Mapping[str, str]) -> str:
    """The columns as the file calls them."""
    shown = ", ".join(list({columns.get(name, name): None for name in record})[:12]) or "none"
    return shown if len(shown) <= 200 else shown[:197] + "..."


def _lost(record: Record, columns: Mapping[str, str]) -> str:
    """Which columns the run file names that the file does not have."""
    lost = [theirs for ours, theirs in columns.items() if theirs not in record and ours not in record]
    return f"{', '.join(lost)}, named in data.columns, is not among them; " if lost else ""


def _hint(record: Record, wanted: str | None, columns: Mapping[str, str]) -> str:
    """What to write in data.columns, where the names are nearly ours or others call them so; else how it is written."""
    names = [name for name in record if name not in FIELDS]
    usual = USUAL.get(wanted or "demonstrations", ())
    if wanted in (None, "demonstrations") and "instruction" in record:
        usual = ALPACA
    if wanted == "preferences":
        usual = _judged(record) or usual
    needed = [one for one in usual if one not in record]
    found = {ours: theirs for ours, theirs in columns.items() if ours in record}
    for ours in needed:
        others = [name for name in names if name not in found.values()]
        plain = {name.strip().casefold(): name for name in record if name not in (*usual, *found.values())}
        near = process.extractOne(ours, others, score_cutoff=80)
        also = next((plain[word] for word in (ours, *ALSO_CALLED.get(ours, ())) if word in plain), None)
        if chosen := also or (near[0] if near else None):
            found[ours] = chosen
    if found.keys() & set(needed) - OPTIONAL:
        said = ", ".join(f"{ours}: {theirs}" for ours, theirs in found.items())
        guessed = ", ".join(found[one] for one in needed if one in found)
        return f"did you mean {guessed}? Then write in the data section: columns: {{{said}}}"
    needed = [one for one in needed if one not in OPTIONAL]
    example = ", ".join(f"{one}: {name}" for one, name in zip(needed, [*names, "COLUMN", "COLUMN"], strict=False))
    return f"name the columns in the data section, such as columns: {{{example}}}" if example else ""


def _judged(record: Record) -> tuple[str, ...]:
    """What a file of single answers, each with what was said of it, should have; nothing where it seems to be none."""
    names = {name.strip().casefold() for name in record}
    if names & {name for ours in ("chosen", "rejected") for name in (ours, *ALSO_CALLED[ours])}:
        return ()
    rated = names & {"rating", *ALSO_CALLED["rating"]}
    if not rated and not names & {"label", *ALSO_CALLED["label"]} and not {"prompt", "completion"} <= names:
        return ()
    return ("prompt", "completion", "rating" if rated else "label")
