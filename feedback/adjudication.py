"""What people dispute is judged once more, in a project of its own, and the verdict there wins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from trueup.feedback import quality
from trueup.feedback.judgement import Comparison, Edit, Judgement, Rating, Thumb

NEIGHBOURS = 1  # ratings that differ by this much are not disputed: people use a scale a little differently


def disputed(judgements: Iterable[Judgement]) -> list[str]:
    """The uids of what people judged differently, the most judged first; of each person the last judgement counts."""
    last = {(one.annotator, one.kind, one.uid): one for one in judgements if not one.adjudicated}
    found = quality.disputed(list(last.values()))
    return [uid for uid, some in found.items() if not _close(some)]


def settle(judgements: Sequence[Judgement]) -> tuple[list[Judgement], dict[str, int]]:
    """The judgements with each adjudicated verdict in the place of what others said of the same thing; and counts.

    Others keep their place in the data, so that an answer that was adjudicated can still be paired with one that was
    not: pairs are made of what one person said of both.
    """
    verdicts = {(one.kind, one.uid): one for one in judgements if one.adjudicated and not isinstance(one, Edit)}
    counts = {"adjudicated": len(verdicts), "upheld_by_adjudication": 0, "overruled_by_adjudication": 0}
    settled: list[Judgement] = []
    for one in judgements:
        verdict = verdicts.get((one.kind, one.uid))
        if verdict is not None and not one.adjudicated:
            said = _as(one, verdict)
            counts["upheld_by_adjudication" if said == one else "overruled_by_adjudication"] += 1
            settled.append(said)
        elif verdict is None or one is verdict:  # of two adjudications the later one counts
            settled.append(one)
    return settled, counts if verdicts else {}


def _as(one: Judgement, verdict: Judgement) -> Judgement:
    """What `one` is once the verdict holds."""
    said: dict[str, Any] = {}
    if isinstance(verdict, Comparison) and isinstance(one, Comparison):
        turned = {"a": "b", "b": "a"} if one.a != verdict.a else {}  # the question was shown with the sides exchanged
        said = {"preferred": turned.get(verdict.preferred, verdict.preferred)}
    elif isinstance(verdict, Thumb):
        said = {"up": verdict.up}
    elif isinstance(verdict, Rating):
        said = {"rating": verdict.rating}
    return replace(one, **said)


def _close(some: Sequence[Judgement]) -> bool:
    ratings = [one.rating for one in some if isinstance(one, Rating)]
    return len(ratings) == len(some) and max(ratings) - min(ratings) <= NEIGHBOURS
