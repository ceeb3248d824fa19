"""A project's tasks, kept current while people judge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from trueup.feedback.client import Client
from trueup.feedback.seen import Seen, see

OVERLAP = timedelta(minutes=1)  # of two pulls: a vote may become visible after a later one
WHOLE_EVERY = 12  # looks: what a wrong clock hides, or somebody deleted, shows in a pull of all
SERVER_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only form its filters read


class Watch:
    """A project's tasks, kept current: the first look pulls all of them, most later ones what changed since.

    Pages are read one after the other, and of each task no more is kept than `Seen` holds.
    """

    def __init__(self, client: Client, project: int, interface: str = "thumbs") -> None:
        self._client, self._project, self._interface, self._looks = client, project, interface, 0
        self._seen: dict[int, Seen] = {}
        self._newest: datetime | None = None

    def look(self, *, whole: bool = False) -> list[Seen]:
        """Every task as it is now; `whole` pulls all of them again, which also shows what was deleted."""
        whole = whole or self._newest is None or self._looks % WHOLE_EVERY == 0
        since = None if whole or self._newest is None else (self._newest - OVERLAP).strftime(SERVER_TIME)
        fresh: dict[int, Seen] = {}
        newest = None if whole else self._newest
        for page in self._client.pages(self._project, since):
            fresh.update((task["id"], see(task, self._interface)) for task in page)
            moments = [moment for task in page if (moment := _moment(task.get("updated_at"))) is not None]
            newest = max([*moments, *([newest] if newest else [])], default=None)
        self._seen = fresh if whole else self._seen | fresh  # once all pages are here: one may fail
        self._newest = newest
        self._looks += 1
        return list(self._seen.values())


def _moment(text: Any) -> datetime | None:
    """An ISO 8601 moment in UTC, as the server's filters read it; None of anything else."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
