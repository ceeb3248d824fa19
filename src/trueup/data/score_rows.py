"""One score as an application wrote it: in a chat log, in Langfuse, in LangSmith."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trueup.data.example import Record
from trueup.data.values import is_missing
from trueup.data.verdicts import as_number

READ = {
    *(
        "id",
        "timestamp",
        "trace_id",
        "traceId",
        "observation_id",
        "observationId",
        "name",
        "value",
        "source",
        "comment",
    ),
    *("data_type", "dataType", "string_value", "stringValue", "author_user_id", "authorUserId", "created_at"),
    *("createdAt", "run_id", "key", "score", "modified_at", "correction", "feedback_source"),
}


@dataclass(frozen=True, slots=True)
class Score:
    """One score as an application wrote it."""

    value: Any
    name: str = ""
    user: str = ""  # who gave it, by the application's own id
    when: str = ""
    comment: str = ""
    by_model: bool = False
    correction: str = ""  # the answer as it should have been


def pseudonym(user: str) -> str:
    """A name for a user of an application, who was not asked whether records may name them."""
    return f"user-{hashlib.sha256(user.encode()).hexdigest()[:8]}" if user else ""


def moment(value: Any) -> str:
    """ISO 8601 of a text or of seconds since 1970; empty where it is neither."""
    if is_missing(value):
        return ""
    number = as_number(value)
    try:
        if number is not None:
            return datetime.fromtimestamp(number, UTC).isoformat()
        return datetime.fromisoformat(str(value).strip()).isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def of_langfuse(row: Record) -> Score:
    """A row of Langfuse's scores: of its exports to blob storage, or of its API, whose names are in camel case."""
    get = either(row)
    kind, text = get("data_type"), get("string_value")
    return Score(
        value=text if kind in ("CATEGORICAL", "TEXT") and text is not None else row.get("value"),
        name=plain(row.get("name")),
        user=plain(get("author_user_id")),
        when=moment(row.get("timestamp")) or moment(get("created_at")),
        comment=plain(row.get("comment")),
        by_model=row.get("source") == "EVAL",
    )


def of_langsmith(row: Record) -> Score:
    """A row of LangSmith's feedback."""
    source = row.get("feedback_source")
    source = source if isinstance(source, dict) else {}
    metadata = source.get("metadata") if isinstance(source.get("metadata"), dict) else {}
    correction = row.get("correction")
    return Score(
        value=row.get("value") if is_missing(row.get("score")) else row.get("score"),
        name=plain(row.get("key")),
        user=plain(source.get("user_id")) or plain((metadata or {}).get("user_id")),
        when=moment(row.get("modified_at")) or moment(row.get("created_at")),
        comment=plain(row.get("comment")),
        by_model=source.get("type") in ("model", "auto_eval"),
        correction=plain(correction),
    )


def either(row: Record) -> Any:
    """Reads a field under its name in snake case, or in camel case."""

    def get(name: str) -> Any:
        first, *rest = name.split("_")
        return row.get(name, row.get(first + "".join(word.title() for word in rest)))

    return get


def plain(value: Any) -> str:
    """A text or a number as text that can be written; empty for anything else."""
    if is_missing(value) or not isinstance(value, str | int) or (isinstance(value, int) and abs(value) >= 10**40):
        return ""
    return str(value).strip().encode("utf-8", "replace").decode()


def about(row: Record) -> str:
    """What a score is about: an observation or a run, else a whole trace."""
    get = either(row)
    one = next((get(name) for name in ("observation_id", "run_id") if plain(get(name))), None)
    return f"trace {plain(get('trace_id'))}" if one is None else plain(one)
