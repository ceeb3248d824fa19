"""What people say of answers: a thumb, a comparison, a rating or an edit, each with who said it, when, and how."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

Row = dict[str, Any]

SIDES = ("a", "b")
COMPARED = (*SIDES, "tie", "both_bad")
RATINGS = range(1, 6)
UNNAMED = re.compile(r"(unnamed )?\d+\.\d+")  # what a person of whom a file says nothing is called, and was earlier


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What every judgement has. One annotation of Label Studio's may hold several."""

    kind: ClassVar[str]

    uid: str  # what was asked about: a completion, or a pair of them
    annotator: str
    annotation_id: int | None = None  # None where the source numbers nothing
    updated_at: str = ""  # ISO 8601, by the clock of the source
    lead_time: float | None = None  # seconds; None where nobody measured
    guidelines: str = ""  # the version that the screen showed; empty where it showed none
    reasons: tuple[str, ...] = ()
    comment: str = ""
    adjudicated: bool = False  # whether it settles what others dispute

    @property
    def verdict(self) -> Any:
        """What was said, without who, when and why."""
        raise NotImplementedError

    @property
    def about(self) -> tuple[str, ...]:
        """The completions (uids) that it is about."""
        return (self.uid,)

    @property
    def is_named(self) -> bool:
        """Whether the source says who gave it, so that two judgements can be known to be of one person."""
        return self.annotation_id is not None or UNNAMED.fullmatch(self.annotator) is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumb(Judgement):
    """One answer is good or bad."""

    kind: ClassVar[str] = "thumb"

    up: bool

    @property
    def verdict(self) -> bool:
        return self.up


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison(Judgement):
    """Of two answers to one prompt, one is better, or both are as good, or both are bad. `uid` is that of the pair."""

    kind: ClassVar[str] = "comparison"

    a: str  # the completion that was shown on side A
    b: str
    preferred: str  # one of COMPARED

    @property
    def verdict(self) -> str:
        return self.preferred

    @property
    def about(self) -> tuple[str, ...]:
        return (self.a, self.b)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating(Judgement):
    """One answer on a scale from 1 (bad) to 5 (excellent)."""

    kind: ClassVar[str] = "rating"

    rating: int

    @property
    def verdict(self) -> int:
        return self.rating


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit(Judgement):
    """One answer as the annotator would have written it."""

    kind: ClassVar[str] = "edit"

    text: str

    @property
    def verdict(self) -> str:
        return self.text


KINDS: dict[str, type[Judgement]] = {kind.kind: kind for kind in (Thumb, Comparison, Rating, Edit)}

_SHAPES: dict[str, Any] = {
    "uid": str,
    "annotator": str,
    "annotation_id": int | None,
    "updated_at": str,
    "lead_time": int | float | None,
    "guidelines": str,
    "comment": str,
    "adjudicated": bool,
    "up": bool,
    "a": str,
    "b": str,
    "preferred": str,
    "rating": int,
    "text": str,
}
_ALLOWED: dict[str, Any] = {"preferred": COMPARED, "rating": RATINGS}


def to_row(judgement: Judgement) -> Row:
    """The judgement as one line of a file."""
    row = {"kind": judgement.kind} | asdict(judgement) | {"reasons": list(judgement.reasons)}
    return row if judgement.adjudicated else {name: value for name, value in row.items() if name != "adjudicated"}


def from_row(row: Any) -> list[Judgement]:
    """The judgements that one line of a file holds: one, or two where a line without a kind has a better answer too.

    Lines without a kind are thumbs: `trueup collect` wrote them before it knew other judgements. Raises ValueError,
    with what is wrong, on anything else.
    """
    if not isinstance(row, dict):
        raise ValueError("no object")
    if "kind" not in row:
        thumb = _read(Thumb, row)
        written = row.get("edited")
        if not isinstance(written, str | None):
            raise ValueError(f"edited is {written!r}")
        return [thumb, _read(Edit, row | {"text": written})] if written else [thumb]
    if not isinstance(row["kind"], str) or row["kind"] not in KINDS:
        raise ValueError(f"kind is {row['kind']!r}, expected one of {', '.join(KINDS)}")
    return [_read(KINDS[row["kind"]], row)]


def _read(kind: type[Judgement], row: Row) -> Judgement:
    values: Row = {}
    for field in fields(kind):
        if field.name not in row:
            continue  # it has a default, or the class refuses
        value = row[field.name]
        if field.name == "reasons":
            if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
                raise ValueError(f"reasons is {value!r}")
            values["reasons"] = tuple(value)
            continue
        truth = isinstance(value, bool) and _SHAPES[field.name] is not bool  # a bool is an int to Python
        if truth or not isinstance(value, _SHAPES[field.name]) or value not in _ALLOWED.get(field.name, [value]):
            raise ValueError(f"{field.name} is {value!r}")
        values[field.name] = sys.intern(value) if field.name in ("annotator", "guidelines") else value
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error).partition(") ")[2] or str(error)) from None
