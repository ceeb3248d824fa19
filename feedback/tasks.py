"""Completions become Label Studio tasks: an opaque uid and the text, nothing else."""

from __future__ import annotations

import re
from typing import Any

# NUL breaks PostgreSQL, lone surrogates the client, and bidirectional controls reorder what a person sees.
UNSAFE = re.compile("[\x00\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text without characters that break a server or mislead a reader."""
    return UNSAFE.sub("", text)


def to_task(row: dict[str, Any]) -> dict[str, Any]:
    """The task of one completion row (uid, messages, completion)."""
    messages = [{"role": m["role"], "content": clean(m["content"])} for m in row["messages"]]
    return {"data": {"uid": row["uid"], "messages": messages, "response": clean(row["completion"])}}


def num_cleaned(rows: list[dict[str, Any]]) -> int:
    """Rows that `to_task` changes."""
    return sum(any(UNSAFE.search(t) for t in [r["completion"], *(m["content"] for m in r["messages"])]) for r in rows)
