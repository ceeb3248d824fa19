"""What Label Studio stores becomes thumbs; what cannot be used is named, never dropped silently.

Nothing here trusts the shape of what the server sent: its API takes any JSON as an annotation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trueup.feedback.tasks import uid_of

THUMBS = {"up": True, "down": False}
SKIPPED, EMPTY = "skipped", "submitted without a thumb"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
UNREADABLE = "Label Studio fails to show the task (status 500): broken characters in a comment?"
MAX_SHOWN = 60  # characters of a value that a message repeats


@dataclass(frozen=True)
class Annotation:
    """One person's verdict on one completion."""

    annotation_id: int
    uid: str
    annotator: str
    up: bool
    reasons: tuple[str, ...]
    comment: str
    edited: str | None  # a better answer, when the person wrote one
    updated_at: str


@dataclass(frozen=True)
class Unusable:
    """An annotation that is no verdict, why, and what the server sent."""

    task: Any  # its id
    uid: str
    why: str
    raw: Any


def parse(task: Any) -> tuple[list[Annotation], list[Unusable]]:
    """The verdicts of one task of ours, and the annotations that are none. Never raises, whatever JSON `task` is."""
    uid = uid_of(task)
    if uid is None:
        return [], []
    good: list[Annotation] = []
    bad: list[Unusable] = []
    if task.get("unreadable"):
        bad.append(Unusable(task.get("id"), uid, UNREADABLE, None))
    for raw in _list(task.get("annotations")):
        found = _verdict(raw, uid, task["data"].get("response"))
        if isinstance(found, Annotation):
            good.append(found)
        else:
            bad.append(Unusable(task.get("id"), uid, found, raw))
    return good, bad


def _verdict(raw: Any, uid: str, response: Any) -> Annotation | str:
    """The verdict, or why there is none."""
    number = raw.get("id") if isinstance(raw, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        return f"malformed: {_shown(raw)}"
    if raw.get("was_cancelled"):
        return SKIPPED
    fields = _fields(raw.get("result"))
    thumbs = fields.get("thumb", [])
    if not thumbs:
        others = sorted(fields)
        return EMPTY if not others else f"no control named thumb (renamed?), but {_shown(others)}"
    if len(thumbs) != 1 or thumbs[0] not in THUMBS:
        return f"thumb is {_shown(thumbs)}, expected up or down (was an alias changed?)"
    written = [text for text in fields.get("edited", []) if text.strip()]
    original = response.strip() if isinstance(response, str) else ""
    return Annotation(
        annotation_id=number,
        uid=uid,
        annotator=_annotator(raw.get("completed_by"), number),
        up=THUMBS[thumbs[0]],
        reasons=tuple(fields.get("why", [])),
        comment=" ".join(fields.get("reason", [])),
        edited=next((text for text in written if text.strip() != original), None),
        updated_at=_text(raw.get("updated_at")),
    )


def _fields(result: Any) -> dict[str, list[str]]:
    """The texts or choices of each control that holds some, by the control's name."""
    fields: dict[str, list[str]] = {}
    for part in _list(result):
        value = part.get("value") if isinstance(part, dict) else None
        if isinstance(value, dict) and isinstance(name := part.get("from_name"), str):
            texts = value.get("choices") or value.get("text")
            found = [_text(text) for text in ([texts] if isinstance(texts, str) else _list(texts))]
            if found:
                fields[_text(name)] = found
    return fields


def _annotator(completed_by: Any, number: int) -> str:
    """An id: /api/tasks gives an object, exports a number. Of whom nothing is known, each verdict is a person's own."""
    known = completed_by.get("id") if isinstance(completed_by, dict) else completed_by
    return f"unknown-{number}" if known is None else _text(known)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    """A string that any file can hold: half a surrogate pair, which JSON can carry, becomes U+FFFD."""
    return LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else "" if value is None else _shown(value)


def _shown(value: Any) -> str:
    """A value in a message, short."""
    text = LONE_SURROGATE.sub("\ufffd", repr(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
