"""Where judgements come from: people in Label Studio, or files in which somebody judged before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from trueup.feedback.files import judgements_of
from trueup.feedback.judgement import Judgement, from_row, to_row
from trueup.feedback.project import Project
from trueup.feedback.questions import Questions

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

    def note(self, line: str) -> None:
        """Tell `trueup status` why what was pulled is no good."""


@dataclass(frozen=True)
class Files:
    """Preferences that exist already, as `trueup.data.read_preferences` gives them: nobody is asked."""

    judged: list[Row]
    notes: dict[str, Any]

    def publish(self) -> int:
        return 0

    def pull(self) -> Pulled:
        judgements, completions = judgements_of(self.judged)
        return Pulled(judgements, completions, [to_row(one) for one in judgements], self.notes)

    def note(self, line: str) -> None:
        """Nobody is waited for, and the error itself says it."""


class LabelStudio:
    """A project of the run's on a Label Studio server, with one task for each question."""

    def __init__(
        self,
        project: Project,
        name: str,
        completions: list[Row],
        asked: Questions,
        *,
        each: int,
        fraction: float,
        guidelines: str = "",
    ) -> None:
        """`each` judgements are wanted of a `fraction` of the questions; people are shown `guidelines`."""
        self.project, self.asked = project, asked
        self._name, self._completions, self._each, self._guidelines = name, completions, each, guidelines
        self._wanted = math.ceil(fraction * len(asked.tasks))

    def publish(self) -> int:
        """Raises ServerError as `Client.publish` does."""
        known = self._make()
        return self.project.client.publish(known[0], self.asked.tasks)

    def pull(self) -> Pulled:
        """Raises Waiting until enough is judged, unless the settings say to wait for that."""
        known = self.project.known or self._make()
        self._standing = found = self.project.labels(known, self.asked.uids, each=self._each, wanted=self._wanted)
        judgements = [one for row in found.rows for one in from_row(row)]
        return Pulled(judgements, self._completions, found.rows, found.counts())

    def _make(self) -> tuple[int, str]:
        return self.project.make(self._name, self._each, self._guidelines)

    def note(self, line: str) -> None:
        """Beside how far people are."""
        self.project.note_progress(self._standing, [line])
