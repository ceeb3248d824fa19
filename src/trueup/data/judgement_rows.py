"""Judgements as `trueup labels export --format jsonl` writes them, read and written."""

from __future__ import annotations

from trueup.data.example import Example, Record
from trueup.data.faults import RowFault
from trueup.data.judged import TIE, rating_of, said_of
from trueup.data.reading import prompt_of, spoken_of
from trueup.data.values import is_missing, text_of
from trueup.data.verdicts import label_of, shown

_KINDS = ("thumb", "comparison", "rating", "edit")
_COMPARED = ("a", "b", "tie", "both_bad")


def judgement(record: Record) -> list[Example]:
    """A judgement as `trueup labels export --format jsonl` writes it."""
    kind = record["kind"]
    if kind not in _KINDS:
        raise RowFault("unknown verdict", f"kind is {shown(kind)}, expected one of {', '.join(_KINDS)}")
    asked = prompt_of(record["prompt"])
    if kind == "comparison":
        a, b = (
            "" if is_missing(record.get(name)) else spoken_of(record[name], name)[1]
            for name in ("completion_a", "completion_b")
        )
        preferred = record.get("preferred")
        if preferred not in _COMPARED:
            raise RowFault("unknown verdict", f"preferred is {shown(preferred)}, expected {', '.join(_COMPARED)}")
        chosen, rejected = (b, a) if preferred == "b" else (a, b)
        votes = (1, 0) if preferred in ("a", "b") else (0, 0)
        barred = "empty answer" if "" in (a, b) else "" if preferred in ("a", "b") else TIE
        said = said_of(record, kind, preferred)
        return [Example(asked, chosen, rejected, votes=votes, verdicts=said, sides=(a, b), barred=barred)]
    completion = spoken_of(record.get("completion"), "completion")[1]
    if kind == "rating":
        return [Example(asked, completion, verdicts=said_of(record, kind, rating_of(record.get("rating"), "rating")))]
    if kind == "edit":
        return [Example(asked, completion, verdicts=said_of(record, kind, text_of(record.get("text"), "text")))]
    up = label_of(record.get("up"), "up")
    return [Example(asked, completion, label=up, votes=(int(up), int(not up)), verdicts=said_of(record, kind, up))]


def as_judgements(example: Example) -> list[Record]:
    """The rows that `judgement` reads the example's verdicts from again; all have the same columns."""
    sides = example.sides or (example.completion or "", example.rejected or "")
    rows = []
    for one in example.verdicts:
        two = one.kind == "comparison"
        rows.append(
            {
                "kind": one.kind,
                "annotator": one.annotator or None,
                "prompt": example.prompt,
                "completion": None if two else example.completion,
                "completion_a": sides[0] if two else None,
                "completion_b": sides[1] if two else None,
                "up": one.value if one.kind == "thumb" else None,
                "preferred": one.value if two else None,
                "rating": one.value if one.kind == "rating" else None,
                "text": one.value if one.kind == "edit" else None,
                "updated_at": one.updated_at or None,
                "lead_time": one.lead_time,
                "comment": one.comment or None,
                "reasons": list(one.reasons),
                "guidelines": one.guidelines or None,
            }
        )
    return rows
