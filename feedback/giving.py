"""How many people each task is given to: counted by people, where Label Studio counts annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trueup.feedback.client import Client
from trueup.feedback.seen import Seen


class Giving:
    """Keeps each task of a project given to as many people as still have to judge it.

    Label Studio gives a task out until it has so many annotations, of whomever, with a verdict or without one. What a
    task has in vain (a second judgement of one person, an empty submission, one of somebody who is not qualified) comes
    on top of the number of people who are to judge it.
    """

    def __init__(self, client: Client, project: int, people: Mapping[str, int]) -> None:
        """`people`: uid -> how many are to judge it. No task is given to fewer than the project says of all."""
        self._client, self._project, self._people = client, project, people
        self._told: dict[Any, int] = {}  # what was changed: it does not show in every look at the project

    def keep(self, tasks: Iterable[Seen], missing: Mapping[str, int]) -> None:
        """Change what has to change, where of some tasks (by uid) so many people are `missing`."""
        changed: dict[Any, tuple[int, bool]] = {}
        least: int | None = None
        for task in tasks:
            now = self._told.get(task.task, task.overlap)
            if task.uid is None or task.uid not in self._people or now is None:
                continue
            wanted = self._people[task.uid]
            if task.uid in missing:
                wanted = task.num_submitted + missing[task.uid]
            elif task.num_submitted >= now >= wanted:
                continue  # nobody is given it any more, and nobody should be
            if now != wanted:
                least = self._client.asks_for(self._project) if least is None else least
                wanted = max(wanted, least)
            if now != wanted:
                changed[task.task] = (wanted, task.num_submitted >= wanted)
        if changed:
            self._client.give_to(changed)
            self._told |= {task: wanted for task, (wanted, _) in changed.items()}
