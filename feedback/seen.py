"""What is kept of a task once its annotations are read: a project of ten thousand answers is never in memory whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trueup.feedback.annotations import SKIPPED, UNREADABLE, Unusable, parse
from trueup.feedback.judgement import Judgement
from trueup.feedback.tasks import uid_of


@dataclass(frozen=True, slots=True)
class Seen:
    """A task without its texts, which take ten times the memory of the rest."""

    task: Any  # its id
    uid: str | None  # None of a task that trueup did not publish
    judgements: tuple[Judgement, ...] = ()
    unusable: tuple[Unusable, ...] = ()
    overlap: int | None = None  # how many people the server gives it to

    @property
    def num_submitted(self) -> int:
        """The annotations that Label Studio counts: with a verdict or without one, and no skips."""
        verdicts = {one.annotation_id for one in self.judgements}
        return len(verdicts) + sum(one.why not in (SKIPPED, UNREADABLE) for one in self.unusable)


def see(task: Any, interface: str = "thumbs") -> Seen:
    """What is kept of a task as the server sent it. Never raises, whatever JSON `task` is."""
    task = task if isinstance(task, dict) else {}
    good, bad = parse(task, interface)
    overlap = task.get("overlap")
    known = overlap if isinstance(overlap, int) and not isinstance(overlap, bool) else None
    return Seen(task.get("id"), uid_of(task), tuple(good), tuple(bad), known)
