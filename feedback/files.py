"""Judgements that exist already: rows of the user's files, with each person told apart where the file does so."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from trueup.data.example import Verdict
from trueup.feedback.judgement import UNNAMED, Comparison, Edit, Judgement, Rating, Thumb

Row = dict[str, Any]


def judgements_of(judged: Iterable[Row]) -> tuple[list[Judgement], list[Row]]:
    """(judgements, completions) of rows that `trueup.data.read_preferences` gave.

    A name is one person in all rows. A voter whom no row names is a person of its own, called `unnamed ROW.VOTER`:
    nothing says that two rows were judged by the same one. Where several people were asked together about two answers,
    the same two in another row are another question; else a person's later verdict replaces the earlier one: the later
    by the times where every judgement has one, and by the order of the rows elsewhere.
    """
    found: list[Judgement] = []
    completions: dict[str, Row] = {}
    asked: Counter[str] = Counter()

    def known(row: Row, text: str) -> str:
        uid = hashlib.sha256(f"{row['prompt_id']}\0{text}".encode()).hexdigest()[:20]
        completions[uid] = {"uid": uid, "prompt_id": row["prompt_id"], "messages": row["messages"], "completion": text}
        return uid

    for number, row in enumerate(judged, start=1):
        sides = () if row["rejected"] is None else row["sides"] or (row["completion"], row["rejected"])
        uids = [known(row, text) for text in sides or (row["completion"],)]
        uid = uids[0] if len(uids) == 1 else hashlib.sha256("\0".join(sorted(uids)).encode()).hexdigest()[:20]
        if row["one_question"] and len(uids) == 2:
            asked[uid] += 1
            uid += f".{asked[uid]}" if asked[uid] > 1 else ""
        for voter, verdict in enumerate(row["verdicts"] or _of_votes(row)):
            found.append(_judgement(verdict, _name(verdict, f"unnamed {number}.{voter}"), uid, uids))
    return _by_time(found), list(completions.values())


def _of_votes(row: Row) -> list[Verdict]:
    ups, downs = row["votes"]
    kind, yes, no = ("thumb", True, False) if row["rejected"] is None else ("comparison", "a", "b")
    return [Verdict(kind, yes)] * ups + [Verdict(kind, no)] * downs


def _name(verdict: Verdict, unnamed: str) -> str:
    name = verdict.annotator or unnamed
    if UNNAMED.fullmatch(name):  # an export of ours says `unnamed`, and other files may number their people
        return unnamed if name.startswith("unnamed ") else f"annotator {name}"
    return name


def _judgement(verdict: Verdict, annotator: str, uid: str, uids: list[str]) -> Judgement:
    common: Row = {
        "uid": uid,
        "annotator": annotator,
        "updated_at": verdict.updated_at,
        "lead_time": verdict.lead_time,
        "guidelines": verdict.guidelines,
        "reasons": verdict.reasons,
        "comment": verdict.comment,
    }
    if verdict.kind == "comparison":
        return Comparison(a=uids[0], b=uids[1], preferred=str(verdict.value), **common)
    if verdict.kind == "rating":
        return Rating(rating=int(verdict.value), **common)
    if verdict.kind == "edit":
        return Edit(text=str(verdict.value), **common)
    return Thumb(up=bool(verdict.value), **common)


def _by_time(found: list[Judgement]) -> list[Judgement]:
    """The judgements in the order in which they were given, where each says when."""
    moments = []
    for one in found:
        try:
            moment = datetime.fromisoformat(one.updated_at)
        except ValueError:
            return found
        moments.append(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return [one for _, one in sorted(zip(moments, found, strict=True), key=lambda item: item[0])]
