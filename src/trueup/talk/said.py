"""What somebody says of an answer as judgements: a thumb, a score, a better answer, each with who and when."""

from __future__ import annotations

import hashlib
from typing import Any

from trueup.feedback import use
from trueup.feedback.judgement import Comparison, Edit, Judgement, Rating, Thumb
from trueup.talk.asked import BadRequest, Said


def judgements(said: Said, uid: str, who: str | None, session: str) -> list[Judgement]:
    """The judgements of answer `uid`. Raises BadRequest where there is none, FeedbackError where `who` is no name."""
    common: dict[str, Any] = {
        "uid": uid,
        "annotator": use.annotator(who, session),
        "updated_at": use.now(),
        "comment": said.comment or "",
    }
    found: list[Judgement] = []
    if said.thumb is not None:
        found.append(Thumb(**common, up=said.thumb == "up"))
    if said.score is not None:
        found.append(Rating(**common, rating=said.score))
    if said.better_answer is not None:
        if not said.better_answer.strip():
            raise BadRequest("better_answer is empty", param="better_answer")
        found.append(Edit(**common, text=said.better_answer.strip()))
    if not found:
        raise BadRequest("nothing is said: give thumb (up or down), score (1 to 5) or better_answer", param="thumb")
    return found


def comparison(a: str, b: str, preferred: str, who: str | None, session: str) -> Comparison:
    """One person's comparison of the answers `a` and `b` (uids) to one prompt, shown on these sides."""
    both = "\0".join(sorted((a, b)))
    return Comparison(
        uid=hashlib.sha256(both.encode()).hexdigest()[:20],  # as of a pair in Label Studio: the side does not matter
        annotator=use.annotator(who, session),
        updated_at=use.now(),
        a=a,
        b=b,
        preferred=preferred,
    )
