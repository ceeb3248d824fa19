"""What Label Studio stores becomes judgements; what cannot be used is named, never dropped silently.

Nothing here trusts the shape of what the server sent: its API takes any JSON as an annotation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.feedback.judgement import COMPARED, RATINGS, Comparison, Edit, Judgement, Rating, Thumb
from trueup.feedback.tasks import uid_of

THUMBS = {"up": True, "down": False}
SKIPPED = "skipped"
UNKNOWN = "unknown-"  # begins the id of an annotator of whom the server says nothing
STAMP = "guidelines"  # the control, never seen, that holds the version of the guidelines on the screen
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
UNREADABLE = "Label Studio fails to show the task (status 500): broken characters in a comment?"
FOREVER_S = 1e9  # more than anybody takes: no time, but a mistake
MAX_SHOWN = 60  # characters of a value that a message repeats

Fields = dict[str, list[str]]  # the texts or choices of each control that holds some, by the control's name
Common = dict[str, Any]  # what every judgement of an annotation has


@dataclass(frozen=True, slots=True)
class Unusable:
    """An annotation that is no verdict, why, and who made it: None where the server does not say."""

    task: Any  # its id
    uid: str
    why: str
    annotator: str | None = None


def parse(task: Any, interface: str = "thumbs") -> tuple[list[Judgement], list[Unusable]]:
    """The judgements of one task of ours, and the annotations that hold none. Never raises, whatever JSON `task` is."""
    uid = uid_of(task)
    if uid is None:
        return [], []
    good: list[Judgement] = []
    bad: list[Unusable] = []
    if task.get("unreadable"):
        bad.append(Unusable(task.get("id"), uid, UNREADABLE))
    for raw in _list(task.get("annotations")):
        found = _judgements(raw, uid, task["data"], PARSERS[interface])
        if isinstance(found, str):
            bad.append(Unusable(task.get("id"), uid, found, _annotator_of(raw)))
        else:
            good += found
    return good, bad


def _judgements(raw: Any, uid: str, data: dict[str, Any], parser: Parser) -> list[Judgement] | str:
    """What one annotation says, or why it says nothing."""
    number = raw.get("id") if isinstance(raw, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        return f"malformed: {_shown(raw)}"
    if raw.get("was_cancelled"):
        return SKIPPED
    fields = _fields(raw.get("result"))
    common = {
        "uid": uid,
        "annotator": _annotator(raw.get("completed_by"), number),
        "annotation_id": number,
        "updated_at": _text(raw.get("updated_at")),
        "lead_time": _seconds(raw.get("lead_time")),
        "guidelines": sys.intern("".join(fields.pop(STAMP, [])[:1])),
        "reasons": tuple(fields.get("why", [])),
        "comment": " ".join(fields.get("reason", [])),
    }
    try:
        return parser(fields, data, common)
    except NoVerdict as error:
        return str(error)


class NoVerdict(Exception):
    """Why an annotation says nothing."""


Parser = Callable[[Fields, dict[str, Any], Common], list[Judgement]]


def _thumbs(fields: Fields, data: dict[str, Any], common: Common) -> list[Judgement]:
    """A thumb, and a better answer where the person wrote one: the box holds the answer until it is changed."""
    said: list[Judgement] = [Thumb(**common, up=THUMBS[_choice(fields, "thumb", tuple(THUMBS))])]
    written = _written(fields)
    if written is not None and written.strip() != _original(data):
        said.append(Edit(**common, text=written))
    return said


def _comparisons(fields: Fields, data: dict[str, Any], common: Common) -> list[Judgement]:
    chosen = _choice(fields, "preference", COMPARED)
    a, b = data.get("uid_a"), data.get("uid_b")
    if not isinstance(a, str) or not isinstance(b, str):
        raise NoVerdict("the task does not say which answers it shows (was its data changed?)")
    return [Comparison(**common, a=_text(a), b=_text(b), preferred=chosen)]


def _ratings(fields: Fields, data: dict[str, Any], common: Common) -> list[Judgement]:
    return [Rating(**common, rating=int(_choice(fields, "rating", tuple(map(str, RATINGS)))))]


def _edits(fields: Fields, data: dict[str, Any], common: Common) -> list[Judgement]:
    """The answer as the person left it. Where that is as it was, the edit says that there is nothing to change."""
    written = _written(fields)
    if written is None:
        raise _missing(fields, "edited", "text")
    return [Edit(**common, text=written)]


PARSERS: dict[str, Parser] = {"thumbs": _thumbs, "pairwise": _comparisons, "rating": _ratings, "edit": _edits}


def _choice(fields: Fields, control: str, allowed: tuple[str, ...]) -> str:
    """The one choice of a control. Raises NoVerdict where there is none, or none of ours."""
    chosen = fields.get(control, [])
    if not chosen:
        raise _missing(fields, control, control)
    if len(chosen) != 1 or chosen[0] not in allowed:
        expected = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise NoVerdict(f"{control} is {_shown(chosen)}, expected {expected} (was an alias changed?)")
    return chosen[0]


def _missing(fields: Fields, control: str, what: str) -> NoVerdict:
    others = sorted(fields.keys() - {control})
    if others:
        return NoVerdict(f"no control named {control} (renamed?), but {_shown(others)}")
    return NoVerdict(f"submitted without a {what}")


def _written(fields: Fields) -> str | None:
    """What is in the box for a better answer."""
    return next((text for text in fields.get("edited", []) if text.strip()), None)


def _original(data: dict[str, Any]) -> str:
    response = data.get("response")
    return response.strip() if isinstance(response, str) else ""


def _fields(result: Any) -> Fields:
    fields: Fields = {}
    for part in _list(result):
        value = part.get("value") if isinstance(part, dict) else None
        if isinstance(value, dict) and isinstance(name := part.get("from_name"), str):
            texts = value.get("choices") or value.get("text")
            found = [_text(text) for text in ([texts] if isinstance(texts, str) else _list(texts))]
            if found:
                fields[_text(name)] = found
    return fields


def _annotator_of(raw: Any) -> str | None:
    """Who made an annotation, as the server sent it; None where it does not say."""
    number, who = (raw.get("id"), raw.get("completed_by")) if isinstance(raw, dict) else (None, None)
    return _annotator(who, number) if isinstance(number, int) and who is not None else None


def _annotator(completed_by: Any, number: int) -> str:
    """An id: /api/tasks gives an object, exports a number. Of whom nothing is known, each verdict is a person's own."""
    known = completed_by.get("id") if isinstance(completed_by, dict) else completed_by
    return f"{UNKNOWN}{number}" if known is None else sys.intern(_text(known))  # one text for all of a person


def _seconds(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < FOREVER_S
    return float(value) if known else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    """A string that any file can hold: half a surrogate pair, which JSON can carry, becomes U+FFFD."""
    return LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else "" if value is None else _shown(value)


def _shown(value: Any) -> str:
    """A value in a message, short."""
    text = LONE_SURROGATE.sub("\ufffd", repr(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
