"""Thumbs: one person's verdict on one answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trueup.feedback.judgement import Judgement, Thumb


@dataclass(frozen=True)
class Vote:
    """One thumb of one annotator on one completion."""

    uid: str
    annotator: str
    up: bool


def votes_in(judgements: Iterable[Judgement]) -> list[Vote]:
    """The thumbs among judgements, as votes."""
    return [Vote(one.uid, one.annotator, one.up) for one in judgements if isinstance(one, Thumb)]
