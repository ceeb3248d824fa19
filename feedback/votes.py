"""Thumbs: one person's verdict on one answer, from Label Studio or from preferences that exist already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trueup.feedback.judgement import Judgement, Thumb

Row = dict[str, Any]


@dataclass(frozen=True)
class Vote:
    """One thumb of one annotator on one completion."""

    uid: str
    annotator: str
    up: bool


def votes_in(judgements: Iterable[Judgement]) -> list[Vote]:
    """The thumbs among judgements, as votes."""
    return [Vote(one.uid, one.annotator, one.up) for one in judgements if isinstance(one, Thumb)]


def votes_of(judged: Iterable[Row]) -> tuple[list[Vote], list[Row]]:
    """(votes, completions) of preferences that exist already.

    Rows of {prompt_id, messages, completion, rejected, votes: (for, against)}; `rejected` is None for thumbs. Each
    voter of each row is a person of its own: nothing says that two rows were judged by the same one.
    """
    votes: list[Vote] = []
    completions: dict[str, Row] = {}

    def known(row: Row, text: str) -> str:
        uid = hashlib.sha256(f"{row['prompt_id']}\0{text}".encode()).hexdigest()[:20]
        completions[uid] = {"uid": uid, "prompt_id": row["prompt_id"], "messages": row["messages"], "completion": text}
        return uid

    for number, row in enumerate(judged):
        uid = known(row, row["completion"])
        other = known(row, row["rejected"]) if row["rejected"] is not None else None
        ups, downs = row["votes"]
        for voter in range(ups + downs):
            up, annotator = voter < ups, f"{number}.{voter}"
            votes.append(Vote(uid, annotator, up))
            if other is not None:
                votes.append(Vote(other, annotator, not up))
    return votes, list(completions.values())
