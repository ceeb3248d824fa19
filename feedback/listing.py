"""A project's tasks, page by page, from a server that may fail to show one, and whose tasks may change meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from trueup.feedback.api import Api
from trueup.feedback.faults import RequestError, unexpected

PAGE = 512  # tasks of one answer; halved where the server cannot write one
WALKS = 3  # over the pages, where the project changes under them
MAX_UNREADABLE = 20  # tasks that a server may be unable to show before the server itself is to blame

Task = dict[str, Any]
Query = dict[str, Any]

# What is needed of tasks and of what is in them, in a fraction of the time that all fields take; and texts as they are,
# where one looks like the address of a file.
ANNOTATION = "id,result,completed_by,was_cancelled,lead_time,ground_truth,created_at,updated_at"
JUDGED: Query = {"include": f"{ANNOTATION},data,annotations,overlap", "resolve_uri": False}
COUNTS: Query = {"include": "id,data,total_annotations,cancelled_annotations,overlap", "resolve_uri": False}


class Listing:
    """Reads of one server. Of an answer only the outermost shape is relied on."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def judged(self, project: int, since: str | None = None) -> Iterator[list[Task]]:
        """Tasks with their annotations: all of them, or those whose `updated_at` is after `since`."""
        query: Query = {}
        if since is not None:
            after = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}
            query["query"] = json.dumps({"filters": {"conjunction": "and", "items": [after]}})
        return self._walk(project, "all", JUDGED | query)

    def counted(self, project: int) -> Iterator[list[Task]]:
        """Tasks with the numbers of their annotations."""
        return self._walk(project, "task_only", COUNTS)

    def total(self, project: int) -> int:
        """How many tasks the project has."""
        return self._page(project, "task_only", COUNTS | {"include": "id"}, 1, 1, [])[0]

    def _walk(self, project: int, fields: str, query: Query) -> Iterator[list[Task]]:
        """Each task once, page by page. What was deleted meanwhile moves others to pages already read: read again."""
        seen: set[int] = set()
        for _ in range(WALKS):
            totals, number = set[int](), 0
            while not totals or number * PAGE < max(totals):
                number += 1
                total, found = self._page(project, fields, query, PAGE, number, [])
                new = {task["id"]: task for task in found if task["id"] not in seen}
                if number > 1 and not found:
                    break
                yield list(new.values())
                seen |= new.keys()
                totals.add(total)
            if len(totals) == 1 and len(seen) >= max(totals):
                return

    def _page(
        self, project: int, fields: str, query: Query, size: int, number: int, unreadable: list[Any]
    ) -> tuple[int, list[Task]]:
        """(tasks in all, those of this page); a page that fails is asked for in halves, down to the task at fault."""
        doing = f"project {project}"
        try:
            answer = self._api.get(
                doing,
                lambda sdk: sdk.tasks.list(project=project, fields=fields, page=number, page_size=size, **query),
                answers=(500,) if fields == "all" else (),
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
            raise unexpected(f"Label Studio, {self._api.url}, {doing}", answer, "an object with tasks and their total")
        return in_all, tasks


def _has_id(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("id"), int)
