"""What Label Studio stores becomes thumbs; what cannot be used is named, never dropped silently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

THUMBS = {"up": True, "down": False}


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
    """An annotation that is no verdict, and why."""

    annotation_id: int
    uid: str
    why: str


def parse(task: dict[str, Any]) -> tuple[list[Annotation], list[Unusable]]:
    """The verdicts of one task, and the annotations that are none (skipped, empty, unknown choice)."""
    uid, response = str(task["data"]["uid"]), task["data"].get("response", "")
    good: list[Annotation] = []
    bad: list[Unusable] = []
    for raw in task.get("annotations") or []:
        number, fields = int(raw["id"]), _fields(raw.get("result") or [])
        thumbs = fields.get("thumb", [])
        if raw.get("was_cancelled"):
            bad.append(Unusable(number, uid, "skipped"))
        elif len(thumbs) != 1 or thumbs[0] not in THUMBS:
            bad.append(Unusable(number, uid, f"thumb is {thumbs}, expected up or down"))
        else:
            edited = next((text for text in fields.get("edited", []) if text.strip() != response.strip()), None)
            good.append(
                Annotation(
                    annotation_id=number,
                    uid=uid,
                    annotator=_annotator(raw.get("completed_by")),
                    up=THUMBS[thumbs[0]],
                    reasons=tuple(fields.get("why", [])),
                    comment=" ".join(fields.get("reason", [])),
                    edited=edited,
                    updated_at=str(raw.get("updated_at", "")),
                )
            )
    return good, bad


def _fields(result: list[dict[str, Any]]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for part in result:
        value = part.get("value", {})
        texts = value.get("choices") or value.get("text") or []
        fields[part.get("from_name", "")] = [texts] if isinstance(texts, str) else list(texts)
    return fields


def _annotator(completed_by: Any) -> str:
    """An id: /api/tasks gives an object, exports a number."""
    return str(completed_by["id"] if isinstance(completed_by, dict) else completed_by)
