"""Where judgements come from: people in Label Studio, or files in which somebody judged before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trueup.feedback import tasks
from trueup.feedback.judgement import Judgement, Thumb, from_row, to_row
from trueup.feedback.project import open_project
from trueup.feedback.votes import votes_of
from trueup.run.run_file import LabelStudioConfig

Row = dict[str, Any]


@dataclass(frozen=True)
class Pulled:
    """What a source says: judgements, oldest first, and the completions that they are about."""

    judgements: list[Judgement]
    completions: list[Row]
    lines: list[Row]  # the judgements as they are frozen, with whatever the source keeps beside them
    notes: dict[str, Any] = field(default_factory=dict)  # for the record: what was not used, and why


class Source(Protocol):
    """What `collect` asks of a source."""

    def publish(self) -> int:
        """Ask for what is not judged yet; return how many questions are new. Asking twice adds nothing."""

    def pull(self) -> Pulled:
        """Everything that was said so far. Raises Waiting where too little was."""


@dataclass(frozen=True)
class Files:
    """Preferences that exist already, as `trueup.data.read_preferences` gives them: nobody is asked."""

    judged: list[Row]
    notes: dict[str, Any]

    def publish(self) -> int:
        return 0

    def pull(self) -> Pulled:
        votes, completions = votes_of(self.judged)
        thumbs: list[Judgement] = [Thumb(uid=v.uid, annotator=v.annotator, up=v.up) for v in votes]
        return Pulled(thumbs, completions, [to_row(one) for one in thumbs], self.notes)


class LabelStudio:
    """A project of the run's on a Label Studio server, with one task for each question."""

    def __init__(
        self, settings: LabelStudioConfig, store: Path, name: str, completions: list[Row], *, each: int, fraction: float
    ) -> None:
        """`each` judgements are wanted of a `fraction` of the questions. Starts our own server where none is named."""
        self.project = open_project(settings, store)
        self._name, self._completions, self._each = name, completions, each
        self._tasks = [tasks.to_task(row) for row in completions]
        self.asked = [task["data"]["uid"] for task in self._tasks]
        self._wanted = math.ceil(fraction * len(self._tasks))

    def publish(self) -> int:
        """Raises ServerError as `Client.publish` does."""
        known = self.project.make(self._name, self._each)
        return self.project.client.publish(known[0], self._tasks)

    def pull(self) -> Pulled:
        """Raises Waiting until enough is judged, unless the settings say to wait for that."""
        known = self.project.known or self.project.make(self._name, self._each)
        self._standing = found = self.project.labels(known, self.asked, each=self._each, wanted=self._wanted)
        judgements = [one for row in found.rows for one in from_row(row)]
        return Pulled(judgements, self._completions, found.rows, found.counts())

    def note(self, line: str) -> None:
        """What `trueup status` says of judgements that were pulled and are no good."""
        self.project.note_progress(self._standing, [line])
