"""What trueup asks of Label Studio: one project per run, every completion in it once, and what people said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from trueup.feedback.api import Api, RequestError, unexpected
from trueup.feedback.connection import Connection
from trueup.feedback.tasks import surplus, uid_of

PAGE = 512  # tasks of one answer; halved where the server cannot write one
MAX_UNREADABLE = 20  # tasks that a server may be unable to show before the server itself is to blame
BODY_BYTES = 500_000  # of one import: nginx takes a million by default
BODY_TASKS = 200  # of one import: it is done before a killed run can be started again
OVERLAP = timedelta(minutes=1)  # of two pulls: a vote may become visible after a later one
WHOLE_EVERY = 12  # looks: what a wrong clock hides, or somebody deleted, shows in a pull of all
COUNTS = {"include": "id,data,total_annotations,cancelled_annotations"}  # a listing in a quarter of the time
SERVER_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only form its filters read
AT_ONCE = 4  # requests, where each is about one task
MAX_TITLE = 50  # characters; Label Studio refuses longer ones

Task = dict[str, Any]


class Client:
    """One server. Its answers are taken as any JSON: only their outermost shape is relied on."""

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        self._api = Api(connection)

    def create_project(self, title: str, label_config: str, *, key: str = "", annotations_per_task: int = 1) -> int:
        """A new project's id; `key` in its description finds it again. Nothing is prefilled from predictions."""
        doing = "creating a project"
        found = self._api.send(
            doing,
            lambda sdk: sdk.projects.create(
                title=title[:MAX_TITLE],
                description=_description(key),
                label_config=label_config,
                show_collab_predictions=False,
                maximum_annotations=annotations_per_task,
            ),
        )
        return self._id(found, doing)

    def find_project(self, key: str) -> int | None:
        """The oldest project made for `key`, where the answer to its creation was lost on the way."""
        doing, number, found, seen = "listing projects", 1, list[int](), set[int]()
        while True:
            page = self._projects(doing, number)
            results = page.get("results") if isinstance(page, dict) else None
            if not isinstance(results, list):
                raise unexpected(f"Label Studio, {self.url}, {doing}", page, "an object with results")
            ids = {self._id(one, doing): one.get("description") for one in results}
            found += [project for project, description in ids.items() if description == _description(key)]
            if not page.get("next") or not ids.keys() - seen:
                return min(found, default=None)
            seen |= ids.keys()
            number += 1

    def ask_for(self, project: int, annotations_per_task: int) -> None:
        """Have each task given to so many people at least."""
        doing = f"project {project}"
        settings = self._api.get(doing, lambda sdk: sdk.projects.with_raw_response.get(project))
        now = settings.get("maximum_annotations") if isinstance(settings, dict) else None
        if not isinstance(now, int):
            raise unexpected(f"Label Studio, {self.url}, {doing}", settings, "a project with maximum_annotations")
        if now < annotations_per_task:
            self._api.send(doing, lambda sdk: sdk.projects.update(project, maximum_annotations=annotations_per_task))

    def give_to(self, project: int, people: Mapping[str, int]) -> int:
        """Have each task of `people` (by uid) given to so many people; return how many tasks that changed.

        Label Studio's own share of overlapping tasks is drawn anew with each import, so each task has its own number.
        A number is lowered no further than to the project's.
        """
        doing = f"project {project}"
        settings = self._api.get(doing, lambda sdk: sdk.projects.with_raw_response.get(project))
        least = settings.get("maximum_annotations") if isinstance(settings, dict) else None
        changed = []
        for task in self._list(project, "task_only", {"include": "id,data,overlap,total_annotations"}):
            uid, now = uid_of(task), task.get("overlap")
            if uid in people and now != (wanted := max(people[uid], least if isinstance(least, int) else 1)):
                enough = (task.get("total_annotations") or 0) >= wanted
                changed.append((str(task["id"]), wanted, enough))

        def change(one: tuple[str, int, bool]) -> None:
            number, wanted, enough = one  # saying it twice does no harm
            self._api.get(f"task {number}", lambda sdk: sdk.tasks.update(number, overlap=wanted, is_labeled=enough))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(change, changed))
        return len(changed)

    def screen(self, project: int) -> str:
        """The labelling screen that the project has."""
        doing = f"project {project}"
        found = self._api.get(doing, lambda sdk: sdk.projects.with_raw_response.get(project))
        config = found.get("label_config") if isinstance(found, dict) else None
        if not isinstance(config, str):
            raise unexpected(f"Label Studio, {self.url}, {doing}", found, "a project with label_config")
        return config

    def show(self, project: int, label_config: str) -> None:
        """Give the project another labelling screen."""
        doing = f"changing the screen of project {project}"
        self._api.send(doing, lambda sdk: sdk.projects.update(project, label_config=label_config))

    def publish(self, project: int, tasks: list[Task]) -> int:
        """Import the tasks whose data.uid the project lacks; return how many. Asking twice adds nothing.

        Where a process was killed while the server imported, or two import at once, what came twice is removed again:
        here, or by the next call.
        """
        present = self._without_surplus(project)
        missing = [task for task in tasks if task["data"]["uid"] not in present]
        for some in _parcels(missing):
            self._import(project, some)
        if missing:
            self._without_surplus(project)
        return len(missing)

    def pull(self, project: int, since: str | None = None) -> list[Task]:
        """Tasks with their annotations: all of them, or those whose `updated_at` is after `since`.

        An annotation made, edited, skipped or deleted moves its task's `updated_at`; a deleted task shows only in a
        pull of all. A task that the server cannot show (a comment of broken characters) comes without its annotations
        and `unreadable`. Raises RequestError when the project is gone.
        """
        self._api.get(f"project {project}", lambda sdk: sdk.projects.with_raw_response.get(project))
        query = {}
        if since is not None:
            after = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}
            query["query"] = json.dumps({"filters": {"conjunction": "and", "items": [after]}})
        return self._list(project, "all", query)

    def _without_surplus(self, project: int) -> set[str]:
        """The uids the project has, after removing tasks that came twice and that nobody has touched."""
        found = self._list(project, "task_only", COUNTS)
        if twice := surplus(found):
            chosen = {"all": False, "included": twice}
            self._api.send(
                f"removing doubled tasks of project {project}",
                lambda sdk: sdk.actions.create(id="delete_tasks", project=project, selected_items=chosen),
            )
        return {uid for task in found if (uid := uid_of(task)) is not None}

    def _list(self, project: int, fields: str, query: dict[str, str]) -> list[Task]:
        tasks: dict[int, Task] = {}
        number = 1
        while True:
            total, found = self._page(project, fields, query, PAGE, number, [])
            new = {task["id"]: task for task in found}
            last = number * PAGE >= total or not new.keys() - tasks.keys()
            tasks |= new
            if last:
                return list(tasks.values())
            number += 1

    def _page(
        self, project: int, fields: str, query: dict[str, str], size: int, number: int, unreadable: list[Any]
    ) -> tuple[int, list[Task]]:
        """(tasks in all, those of this page); a page that fails is asked for in halves, down to the task at fault."""
        doing = f"project {project}"
        try:
            answer = self._api.get(
                doing,
                lambda sdk: sdk.tasks.list(project=project, fields=fields, page=number, page_size=size, **query),
            )
        except RequestError as error:
            if error.status == 404 and (number > 1 or size < PAGE):
                return 0, []  # after the last page
            if error.status != 500 or fields != "all" or len(unreadable) >= MAX_UNREADABLE:
                raise
            if size == 1:
                total, found = self._page(project, "task_only", query, 1, number, unreadable)
                unreadable += found
                return total, [task | {"annotations": None, "unreadable": True} for task in found]
            first = self._page(project, fields, query, size // 2, 2 * number - 1, unreadable)
            second = self._page(project, fields, query, size // 2, 2 * number, unreadable)
            return max(first[0], second[0]), first[1] + second[1]
        tasks, in_all = (answer.get("tasks"), answer.get("total")) if isinstance(answer, dict) else (None, None)
        if not isinstance(tasks, list) or not isinstance(in_all, int) or not all(map(_has_id, tasks)):
            raise unexpected(f"Label Studio, {self.url}, {doing}", answer, "an object with tasks and their total")
        return in_all, tasks

    def _projects(self, doing: str, number: int) -> Any:
        return self._api.get(doing, lambda sdk: sdk.projects.list(page=number, page_size=100, include="id,description"))

    def _import(self, project: int, tasks: list[Task]) -> None:
        doing = f"importing into project {project}"
        self._api.send(doing, lambda sdk: sdk.projects.import_tasks(project, request=tasks))

    def _id(self, project: Any, doing: str) -> int:
        number = project.get("id") if isinstance(project, dict) else None
        if not isinstance(number, int):
            raise unexpected(f"Label Studio, {self.url}, {doing}", project, "a project with its id")
        return number


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
        fresh = {task["id"]: task for task in self._client.pull(self._project, since)}
        self._tasks = fresh if whole else self._tasks | fresh
        self._looks += 1
        return list(self._tasks.values())


def _has_id(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("id"), int)


def _description(key: str) -> str:
    return f"Published by trueup, key {key}." if key else ""


def _parcels(tasks: list[Task]) -> list[list[Task]]:
    """The tasks in order, so many to a request as a proxy lets through."""
    parcels: list[list[Task]] = []
    room = 0
    for task in tasks:
        size = len(json.dumps(task)) + 2
        if not parcels or size > room or len(parcels[-1]) == BODY_TASKS:
            parcels.append([])
            room = BODY_BYTES
        parcels[-1].append(task)
        room -= size
    return parcels


def _moment(text: Any) -> datetime | None:
    """An ISO 8601 moment in UTC, as the server's filters read it; None of anything else."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
