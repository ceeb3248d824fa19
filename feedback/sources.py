"""Where judgements come from: people in Label Studio, or files in which somebody judged before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from trueup.feedback.adjudication import disputed
from trueup.feedback.asking import Asked
from trueup.feedback.checks import set_apart
from trueup.feedback.files import judgements_of
from trueup.feedback.judgement import Judgement, from_row, to_row
from trueup.feedback.project import Project
from trueup.feedback.qualification import Qualification
from trueup.feedback.questions import numbered
from trueup.feedback.store import to_line

Row = dict[str, Any]


@dataclass(frozen=True)
class Pulled:
    """What a source says: judgements, oldest first, and the completions that they are about."""

    judgements: list[Judgement]
    completions: list[Row]
    lines: list[Row]  # the judgements as they are frozen, with whatever the source keeps beside them
    notes: dict[str, Any] = field(default_factory=dict)  # for the record: what was not used, and why
    checks: list[Row] = field(default_factory=list)  # what was said of gold and repetitions, set apart


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
        asked: Asked,
        *,
        each: int,
        fraction: float,
        guidelines: str = "",
        qualification: Qualification | None = None,
        adjudication: Project,
        adjudicates: bool = False,
    ) -> None:
        """`each` judgements are wanted of a `fraction` of the questions, of some more as `asked` says.

        People are shown `guidelines`, and count once they have the `qualification`. What they dispute is asked once
        more in the project `adjudication`, where it `adjudicates`; else the verdicts that are there are taken.
        """
        self.project, self.asked = project, asked
        self._adjudication, self._adjudicates, self._qualification = adjudication, adjudicates, qualification
        self._name, self._completions, self._each, self._guidelines = name, completions, each, guidelines
        self._wanted = math.ceil(fraction * len(asked.people))

    def publish(self) -> int:
        """Raises ServerError as `Client.publish` does."""
        self.project.store.remember_asked(self.asked.drawn)
        known = self._make()
        return self.project.client.publish(known[0], self.asked.tasks)

    def pull(self) -> Pulled:
        """Raises Waiting until enough is judged, unless the settings say to wait for that."""
        known = self.project.known or self._make()
        self._standing = found = self.project.labels(
            known,
            list(self.asked.people),
            each=self.asked.people,
            wanted=self._wanted,
            given=self.asked.people_of_all,
            qualification=self._qualification,
        )
        rows, checks = set_apart(map(to_line, found.said), self.project.store.asked())
        checks = [row for row in checks if row.get("of", row["uid"]) in {*self.asked.people, *self.asked.right}]
        checks += [to_line(said) | {"check": "not qualified"} for said in found.held]
        rows = self._adjudicated(rows)
        judgements = [one for row in rows for one in from_row(row)]
        return Pulled(judgements, self._completions, rows, found.counts(), checks)

    def _adjudicated(self, rows: list[Row]) -> list[Row]:
        """The lines with those of the adjudication last, and marked. Raises Waiting as `pull` does."""
        adjudication, keys = self._adjudication, self.project.store.keys_of_adjudication()
        said = [row for row in rows if row["project"] not in keys]
        settled = [row | {"adjudicated": True} for row in rows if row["project"] in keys]
        uids = [uid for uid in disputed(one for row in said for one in from_row(row)) if uid in self.asked.people]
        if self._adjudicates and uids:
            number, _ = adjudication.make(f"{self._name}: disputed", 1, self._guidelines)
            tasks = {task["data"]["uid"]: task for task in self.asked.tasks}
            adjudication.client.publish(number, numbered([tasks[uid] for uid in uids]))
        if (known := adjudication.known) is not None:
            found = adjudication.labels(known, uids, each=1, wanted=len(uids) if self._adjudicates else 0)
            settled = [row for row in settled if row["project"] != known[1]]
            settled += [to_line(one) | {"adjudicated": True} for one in found.said if one[0] == known[1]]
        return said + settled

    def _make(self) -> tuple[int, str]:
        return self.project.make(self._name, self._each, self._guidelines)

    def note(self, line: str) -> None:
        """Beside how far people are."""
        self.project.note_progress(self._standing, [line])
