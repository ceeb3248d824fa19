"""What trueup asks of Label Studio: one project per run, every completion in it once, and what people said of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trueup.feedback.api import Api, attempts
from trueup.feedback.connection import Connection
from trueup.feedback.faults import AGAIN, RequestError, unexpected
from trueup.feedback.listing import Listing, Task
from trueup.feedback.tasks import Counted, counted, surplus
from trueup.progress import bars, track

BODY_BYTES = 500_000  # of one import: nginx takes a million by default
BODY_TASKS = 200  # of one import: it is done before a killed run can be started again
LOST_ANSWER_S = 1.0  # until a server that did not answer is asked what it has done, doubled with each attempt
AT_ONCE = 4  # requests, where each is about one task
MAX_TITLE = 50  # characters; Label Studio refuses longer ones


class Client:
    """One server. Its answers are taken as any JSON: only their outermost shape is relied on."""

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        self._api = Api(connection)
        self._listing = Listing(self._api)

    def create_project(self, title: str, label_config: str, *, key: str = "", annotations_per_task: int = 1) -> int:
        """A new project's id; `key` in its description finds it again. Nothing is prefilled from predictions.

        Where the answer is lost on the way, the project is looked for, and made again only if there is none.
        """
        doing, key = "creating a project", key or secrets.token_hex(6)
        for attempt in attempts(first_pause_s=LOST_ANSWER_S):
            if attempt.num > 1 and (made := self.find_project(key)) is not None:
                return made
            with attempt:
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
        raise AssertionError

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
        if self.asks_for(project) < annotations_per_task:
            doing = f"project {project}"
            self._api.get(doing, lambda sdk: sdk.projects.update(project, maximum_annotations=annotations_per_task))

    def asks_for(self, project: int) -> int:
        """How many people the project gives each task to that has no number of its own."""
        doing = f"project {project}"
        settings = self._api.get(doing, lambda sdk: sdk.projects.with_raw_response.get(project))
        now = settings.get("maximum_annotations") if isinstance(settings, dict) else None
        if not isinstance(now, int):
            raise unexpected(f"Label Studio, {self.url}, {doing}", settings, "a project with maximum_annotations")
        return now

    def give_to(self, people: Mapping[Any, tuple[int, bool]]) -> None:
        """Have tasks given to so many people: id -> (that number, whether it is reached). Saying it twice does no harm.

        Label Studio's own share of overlapping tasks is drawn anew with each import, so each task has its own number.
        """

        def change(one: tuple[Any, tuple[int, bool]]) -> None:
            task, (number, enough) = str(one[0]), one[1]
            self._api.get(f"task {task}", lambda sdk: sdk.tasks.update(task, overlap=number, is_labeled=enough))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(track("collect", "people for each task", pool.map(change, people.items()), len(people)))

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
        self._api.get(doing, lambda sdk: sdk.projects.update(project, label_config=label_config))

    def publish(self, project: int, tasks: list[Task]) -> int:
        """Import the tasks whose data.uid the project lacks; return how many. Asking twice adds nothing.

        An import whose answer is lost is never sent again blindly: the project is asked what it has. Where a process
        was killed while the server imported, or two import at once, what came twice is removed again: here, or by the
        next call.
        """
        added = -1
        for attempt in attempts(first_pause_s=LOST_ANSWER_S):
            found = self._counted(project)
            present = {task.uid for task in found}
            missing = [task for task in tasks if task["data"]["uid"] not in present]
            added = max(added, len(missing))  # of the first attempt
            with attempt:
                self._import(project, missing)
                expected = len(found) + len(missing)
                break
        if added and self._listing.total(project) != expected:  # others import or delete, too
            self._refuse_lost(project, tasks)
        return added

    def _refuse_lost(self, project: int, tasks: list[Task]) -> None:
        """Remove what is there twice. Raises RequestError where a task is not there."""
        present = {task.uid for task in self._counted(project)}
        lost = sum(task["data"]["uid"] not in present for task in tasks)
        if lost:
            raise RequestError(
                f"Label Studio, {self.url}, project {project}",
                found=f"{lost:,} of {len(tasks):,} tasks that it took are not there",
                expected="each of them",
                next_step=f"{AGAIN}; if somebody deletes tasks there, let them stop first",
                status=200,
            )

    def pull(self, project: int, since: str | None = None) -> list[Task]:
        """Tasks with their annotations, as `pages` gives them."""
        return [task for page in self.pages(project, since) for task in page]

    def pages(self, project: int, since: str | None = None) -> Iterator[list[Task]]:
        """Tasks with their annotations, page by page: all of them, or those whose `updated_at` is after `since`.

        An annotation made, edited, skipped or deleted moves its task's `updated_at`; a deleted task shows only in a
        pull of all. A task that the server cannot show (a comment of broken characters) comes without its annotations
        and `unreadable`. Raises RequestError when the project is gone.
        """
        self._api.get(f"project {project}", lambda sdk: sdk.projects.with_raw_response.get(project))
        yield from self._listing.judged(project, since)

    def _counted(self, project: int) -> list[Counted]:
        """The project's tasks, without their texts; what came twice and is untouched is removed."""
        found = [counted(task) for page in self._listing.counted(project) for task in page]
        twice = surplus(found)
        if twice:
            chosen = {"all": False, "included": twice}
            self._api.get(
                f"removing doubled tasks of project {project}",
                lambda sdk: sdk.actions.create(id="delete_tasks", project=project, selected_items=chosen),
            )
        gone = set(twice)
        return [task for task in found if task.id not in gone]

    def _projects(self, doing: str, number: int) -> Any:
        return self._api.get(doing, lambda sdk: sdk.projects.list(page=number, page_size=100, include="id,description"))

    def _import(self, project: int, tasks: list[Task]) -> None:
        with bars("collect") as bar:
            line = bar.add_task("publishing", total=len(tasks), visible=bool(tasks))
            for some in _parcels(tasks):
                self._send_tasks(project, some)
                bar.advance(line, len(some))

    def _send_tasks(self, project: int, tasks: list[Task]) -> None:
        doing = f"importing into project {project}"
        self._api.send(doing, lambda sdk: sdk.projects.import_tasks(project, request=tasks))

    def _id(self, project: Any, doing: str) -> int:
        number = project.get("id") if isinstance(project, dict) else None
        if not isinstance(number, int):
            raise unexpected(f"Label Studio, {self.url}, {doing}", project, "a project with its id")
        return number


def _description(key: str) -> str:
    return f"Published by trueup, key {key}."


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
