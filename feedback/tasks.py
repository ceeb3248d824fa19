"""Completions become Label Studio tasks: opaque uids and the texts, nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

# NUL breaks PostgreSQL, lone surrogates the client, and bidirectional controls reorder what a person sees.
UNSAFE = re.compile("[\x00\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
CUT = "The answer was cut here: it reached the length limit before it ended."


def clean(text: str) -> str:
    """The text without characters that break a server or mislead a reader."""
    return UNSAFE.sub("", text)


def to_task(row: dict[str, Any]) -> dict[str, Any]:
    """The task of one completion row (uid, messages, completion, and finish where it is known)."""
    said = {"messages": _dialogue(row), "response": clean(row["completion"]), "cut": _cut(row)}
    return {"data": {"uid": row["uid"]} | said}


def to_pair_task(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The task that compares two completions of one prompt. Its uid is the same whichever is on side A."""
    both = "\0".join(sorted((a["uid"], b["uid"])))
    said = {"messages": _dialogue(a), "a": clean(a["completion"]), "b": clean(b["completion"])}
    sides = {"uid_a": a["uid"], "uid_b": b["uid"], "cut_a": _cut(a), "cut_b": _cut(b)}
    return {"data": {"uid": hashlib.sha256(both.encode()).hexdigest()[:20]} | said | sides}


def _dialogue(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": m["role"], "content": clean(_shown(m))} for m in row["messages"]]


def _cut(row: dict[str, Any]) -> str:
    return CUT if row.get("finish") == "length" else ""


def num_cleaned(rows: list[dict[str, Any]]) -> int:
    """Rows that `to_task` changes."""
    return sum(any(UNSAFE.search(t) for t in [r["completion"], *map(_shown, r["messages"])]) for r in rows)


def uid_of(task: Any) -> str | None:
    """The completion that a task shows; None of a task that trueup did not publish."""
    data = task.get("data") if isinstance(task, dict) else None
    uid = data.get("uid") if isinstance(data, dict) else None
    return uid if isinstance(uid, str) else None


class Counted(NamedTuple):
    """A task as it is counted, without its texts."""

    id: int
    uid: str | None  # None of a task that trueup did not publish
    touched: bool  # whether anybody judged or skipped it


def counted(task: dict[str, Any]) -> Counted:
    """What is kept of a task of a listing with its counts, whose `id` is a number."""
    touched = any(task.get(name) for name in ("total_annotations", "cancelled_annotations"))
    return Counted(task["id"], uid_of(task), touched)


def surplus(tasks: Sequence[Counted]) -> list[int]:
    """The ids of tasks that show a completion once more than needed, and that nobody has touched.

    Of several untouched ones the oldest stays, so that two who clean up at once remove the same ones.
    """
    several = {uid for uid, number in Counter(task.uid for task in tasks).items() if uid is not None and number > 1}
    seen: dict[str, list[Counted]] = {}
    for task in tasks:
        if task.uid in several:
            seen.setdefault(task.uid, []).append(task)
    twice = [sorted(same, key=lambda task: (not task.touched, task.id)) for same in seen.values()]
    return [task.id for same in twice for task in same[1:] if not task.touched]


def _shown(message: dict[str, Any]) -> str:
    """A message's text, and the calls of tools that it makes."""
    content = message.get("content")
    text = content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)
    calls = message.get("tool_calls")
    return "\n".join([*filter(None, [text]), *(json.dumps(call, ensure_ascii=False) for call in calls or [])])
