"""Talking to Label Studio: publish once, pull everything; every failure in one clear message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from trueup.errors import ServerError
from trueup.feedback.server import Connection

CHUNK = 500  # uids in one filter: it travels in the URL
OVERLAP = timedelta(minutes=1)  # of two pulls: a vote may become visible after a later one
SERVER_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only form its filters read
MAX_TITLE = 50  # characters; Label Studio refuses longer ones


class Client:
    """One server, through the SDK (imported late: it takes a second)."""

    def __init__(self, connection: Connection) -> None:
        from label_studio_sdk import LabelStudio

        self.url = connection.url
        self._api = LabelStudio(base_url=connection.url, api_key=connection.token)

    def create_project(self, title: str, label_config: str) -> int:
        """A new project's id; nothing is prefilled from predictions."""
        with self._explained("creating a project"):
            project = self._api.projects.create(
                title=title[:MAX_TITLE], label_config=label_config, show_collab_predictions=False
            )
        return int(project.id)

    def publish(self, project: int, tasks: list[dict[str, Any]]) -> int:
        """Import the tasks whose data.uid the project lacks; return how many. Typing it twice adds nothing."""
        present = self._present(project, [task["data"]["uid"] for task in tasks])
        missing = [task for task in tasks if task["data"]["uid"] not in present]
        if missing:
            with self._explained(f"importing into project {project}"):
                self._api.projects.import_tasks(project, request=missing, request_options={"max_retries": 0})
        return len(missing)

    def pull(self, project: int, since: str | None = None) -> list[dict[str, Any]]:
        """Tasks with their annotations: all of them, or those whose `updated_at` is after `since`.

        An annotation made, edited, skipped or deleted moves its task's `updated_at`; a deleted task shows only in a
        pull of all. Raises ServerError when the project is gone.
        """
        query = None
        if since is not None:
            after = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}
            query = json.dumps({"filters": {"conjunction": "and", "items": [after]}})
        with self._explained(f"project {project}"):
            self._api.projects.get(project)
            found = self._api.tasks.list(project=project, query=query, fields="all", page_size=CHUNK)
            return [_plain(task) for task in found]

    def _present(self, project: int, uids: list[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(uids), CHUNK):
            item = {"filter": "filter:tasks:data.uid", "operator": "in_list", "type": "String"}
            items = [item | {"value": uids[start : start + CHUNK]}]
            query = json.dumps({"filters": {"conjunction": "and", "items": items}})
            with self._explained(f"project {project}"):
                tasks = self._api.tasks.list(project=project, query=query, page_size=CHUNK)
                found |= {_plain(task)["data"]["uid"] for task in tasks}
        return found

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        from label_studio_sdk.core.api_error import ApiError

        where = f"Label Studio, {self.url}, {doing}"
        try:
            yield
        except ApiError as error:
            said = {401: "the token is refused", 404: "it is not there (deleted?)"}
            hints = {
                401: "set LABEL_STUDIO_API_KEY to a token of this server",
                404: "to publish anew (labels already pulled are kept), remove projects.json in the run's store folder",
            }
            code = error.status_code or 0
            found = said.get(code, f"status {code}")
            raise ServerError(where, found=found, next_step=hints.get(code, "read the server's log")) from None
        except httpx.HTTPError as error:
            raise ServerError(
                where,
                found=f"no answer ({type(error).__name__})",
                next_step="trueup labelstudio start, or mend labelstudio.url",
            ) from None


class Watch:
    """A project's tasks, kept current: the first look pulls all of them, later ones what changed since."""

    def __init__(self, client: Client, project: int) -> None:
        self._client, self._project = client, project
        self._tasks: dict[int, dict[str, Any]] = {}

    def look(self, *, whole: bool = False) -> list[dict[str, Any]]:
        """Every task as it is now; `whole` pulls all of them again, which also shows what was deleted."""
        newest = max((str(task["updated_at"]) for task in self._tasks.values()), default=None)
        since = None if whole or newest is None else _ago(newest)
        fresh = {int(task["id"]): task for task in self._client.pull(self._project, since)}
        self._tasks = fresh if since is None else self._tasks | fresh
        return list(self._tasks.values())


def _ago(moment: str) -> str:
    """The overlap before an ISO 8601 moment, as the server's filters read it."""
    return (datetime.fromisoformat(moment) - OVERLAP).astimezone(UTC).strftime(SERVER_TIME)


def _plain(task: Any) -> dict[str, Any]:
    value: dict[str, Any] = task if isinstance(task, dict) else task.model_dump(mode="json")
    return value
