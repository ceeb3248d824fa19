"""A project is watched without being in memory: what is kept of a task is less than the answer that it shows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from trueup.feedback.client import Client
from trueup.feedback.connection import Connection
from trueup.feedback.standing import standing
from trueup.feedback.store import Store
from trueup.feedback.watch import Watch

ANSWER = 2_000  # characters
THUMB = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": ["up"]}}


def pages(count: int) -> Iterator[list[dict[str, Any]]]:
    """What a server sends of so many tasks, each judged once, 200 tasks on a page."""
    for start in range(0, count, 200):
        yield [
            {
                "id": number,
                "data": {"uid": f"{number:020x}", "response": f"{number} ".ljust(ANSWER, "a"), "messages": []},
                "annotations": [
                    {
                        "id": number,
                        "completed_by": number % 3,
                        "result": [dict(THUMB)],
                        "lead_time": number / 7,
                        "updated_at": f"2026-11-27T10:00:00.{number:06d}Z",
                    }
                ],
                "overlap": 1,
                "updated_at": f"2026-11-27T10:00:00.{number:06d}Z",
            }
            for number in range(start, min(start + 200, count))
        ]


def test_what_is_kept_of_a_task_is_less_than_its_answer(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Connection("http://127.0.0.1:9", "t" * 40))
    peaks = {}
    for count in (600, 3_000):
        monkeypatch.setattr(client, "pages", lambda project, since=None, count=count: pages(count))
        asked, store = [f"{number:020x}" for number in range(count)], Store(tmp_path / str(count))
        tracemalloc.start()
        found = standing(Watch(client, 1).look(), asked, store, "key", each=1, wanted=count)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.labelled == count
    assert (peaks[3_000] - peaks[600]) / 2_400 < ANSWER
