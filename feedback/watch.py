"""A project's tasks, kept current while people judge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from trueup.feedback.client import Client
from trueup.feedback.listing import Task

OVERLAP = timedelta(minutes=1)  # of two pulls: a vote may become visible after a later one
WHOLE_EVERY = 12  # looks: what a wrong clock hides, or somebody deleted, shows in a pull of all
SERVER_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only form its filters read


class Watch:
    """A project's tasks, kept current: the first look pulls all of them, most later ones what changed since."""

    def __init__(self, client: Client, project: int) -> None:
        self._client, self._project, self._looks = client, project, 0
        self._tasks: dict[int, Task] = {}

    def look(self, *, whole: bool = False) -> list[Task]:
        """Every task as it is now; `whole` pulls all of them again, which also shows what was deleted."""
        moments = [moment for task in self._tasks.values() if (moment := _moment(task.get("updated_at"))) is not None]
        whole = whole or not moments or self._looks % WHOLE_EVERY == 0
        since = None if whole else (max(moments) - OVERLAP).strftime(SERVER_TIME)
        fresh = {task["id"]: _needed(task) for page in self._client.pages(self._project, since) for task in page}
        self._tasks = fresh if whole else self._tasks | fresh
        self._looks += 1
        return list(self._tasks.values())


def _needed(task: Task) -> Task:
    """The task without the dialogue it shows, which no judgement needs."""
    data = task.get("data")
    return task | {"data": {k: v for k, v in data.items() if k != "messages"}} if isinstance(data, dict) else task


def _moment(text: Any) -> datetime | None:
    """An ISO 8601 moment in UTC, as the server's filters read it; None of anything else."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
