"""Label Studio's answers, as any JSON and any bytes: verdicts, counted annotations that are none, or a TrueupError.

`TRUEUP_FUZZ=5000 python -m pytest tests/fuzz/test_labelstudio_fuzz.py` tries that many inputs, new ones each time.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from fake_server import Answer, Asked, Fake, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueup.errors import TrueupError
from trueup.feedback.annotations import PARSERS, parse
from trueup.feedback.client import Client
from trueup.feedback.connection import Connection
from trueup.feedback.judgement import from_row, to_row
from trueup.feedback.seen import see
from trueup.feedback.standing import standing
from trueup.feedback.store import Store, to_line
from trueup.feedback.tasks import counted, surplus, to_task, uid_of
from trueup.run.artifacts import read_jsonl, write_jsonl

NUM_TESTS = 3
EXAMPLES = int(os.environ.get("TRUEUP_FUZZ", "360")) // NUM_TESTS
often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TRUEUP_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

MOST = 100  # requests of one use

TEXT = st.text(st.characters(codec=None), max_size=8)  # with halves of surrogate pairs
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(TEXT, x, max_size=3), max_leaves=6)
UIDS = st.sampled_from(["u0", "u1", "foreign"])


def shaped(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with these fields, each of which may be any JSON or missing; or any JSON instead of it."""
    return JSON | st.fixed_dictionaries({}, optional={name: JSON | value for name, value in fields.items()})


VALUES = shaped(
    choices=st.lists(st.sampled_from(["up", "down", "Good", "a", "4"]), max_size=2), text=st.lists(TEXT, max_size=2)
)
PARTS = shaped(
    from_name=st.sampled_from(["thumb", "preference", "rating", "why", "reason", "edited", "guidelines"]), value=VALUES
)
ANNOTATIONS = shaped(
    id=st.integers(0, 9),
    completed_by=st.integers(0, 2) | st.fixed_dictionaries({"id": JSON}),
    result=st.lists(PARTS, max_size=3),
    was_cancelled=st.booleans(),
    updated_at=st.just("2026-11-27T17:19:15.568202Z"),
    lead_time=st.floats() | st.integers(),
)
TASKS = shaped(
    id=st.integers(0, 9),
    data=shaped(uid=UIDS, response=TEXT, uid_a=TEXT, uid_b=TEXT),
    annotations=st.lists(ANNOTATIONS, max_size=3),
    updated_at=st.sampled_from(["2026-11-27T17:19:15.568202Z", "yesterday"]),
    total_annotations=st.integers(0, 2),
)
LISTINGS = shaped(tasks=st.lists(TASKS, max_size=3), total=st.integers(0, 3))
PROJECTS = shaped(results=st.lists(shaped(id=st.integers(0, 9), description=TEXT), max_size=2), next=st.none())
SETTINGS = shaped(id=st.integers(0, 9), maximum_annotations=st.integers(0, 2))
BODIES = st.binary(max_size=20) | st.sampled_from([b"", b"[" * 5_000, b"<html><title>Log in</title>", b'{"ok": true}'])
STATUS = st.sampled_from([200, 200, 200, 200, 201, 204, 301, 302, 304, 400, 401, 403, 404, 413, 414, 418, 500])


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


@often
@given(task=TASKS, interface=st.sampled_from(sorted(PARSERS)))
def test_any_task_gives_verdicts_or_annotations_that_are_none(task: Any, interface: str) -> None:
    good, bad = parse(task, interface)
    annotations = task.get("annotations") if isinstance(task, dict) and uid_of(task) else []
    count = len(annotations) if isinstance(annotations, list) else 0
    annotated = len([one for one in good if one.kind != "edit" or interface == "edit"])  # a thumb may bring an edit
    assert annotated + len(bad) == (count or bool(uid_of(task) and task.get("unreadable")))
    json.dumps([to_row(one) for one in good], ensure_ascii=False).encode()  # a file can hold them
    assert [read for one in good for read in from_row(to_row(one))] == good


@often
@given(tasks=st.lists(TASKS, max_size=5))
def test_any_tasks_are_counted_and_stored(tasks: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder)
    tasks = [task for task in tasks if isinstance(task, dict) and isinstance(task.get("id"), int)]  # as Client has it
    for _ in range(2):
        found = standing([see(task) for task in tasks], ["u0", "u1"], store, "key", each=1, wanted=2)
    assert 0 <= found.labelled + found.to_come <= 2
    assert found.broken == []
    assert len(found.notes("http://a/projects/1", 2)) <= len(found.unusable) + 4
    json.dumps(found.counts(), ensure_ascii=False).encode()
    rows = [to_line(said) for said in found.said]
    write_jsonl(folder / "frozen.jsonl", rows)
    assert list(read_jsonl(folder / "frozen.jsonl")) == rows
    surplus([counted(task) for task in tasks])


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with serving(lambda asked: (500, {}, b"")) as made:
        yield made


def use(url: str, store: Store) -> None:
    """All that collect asks of a server."""
    client = Client(Connection(url, "t" * 40))
    number = client.find_project("key") or client.create_project("trueup x", "<View/>", key="key")
    client.ask_for(number, 2)
    rows = [{"uid": uid, "messages": [{"role": "user", "content": "q"}], "completion": "a"} for uid in ("u0", "u1")]
    client.publish(number, [to_task(row) for row in rows])
    standing([see(task) for task in client.pull(number)], ["u0", "u1"], store, "key", each=1, wanted=2)


@often
@given(listing=LISTINGS, projects=PROJECTS, project=SETTINGS, other=JSON, status=STATUS, body=BODIES, at=st.integers())
def test_a_server_that_answers_anything_ends_in_an_error_of_ours_or_none(
    fake: Fake,
    tmp_path_factory: pytest.TempPathFactory,
    listing: Any,
    projects: Any,
    project: Any,
    other: Any,
    status: int,
    body: bytes,
    at: int,
) -> None:
    count = 0

    def answer(asked: Asked) -> Answer:
        nonlocal count
        count += 1
        if count > MOST:
            return 404, {}, b""
        if count == at % 12:  # one answer of these is any status with any bytes
            return status, {"location": "https://sso.example.org/login?secret=1"}, b"" if status in (204, 304) else body
        path = asked.path.partition("?")[0]
        if path == "/api/tasks/":
            return 200, {}, written(listing)
        if path == "/api/projects/":
            return 200, {}, written(project if asked.method == "POST" else projects)
        return 200, {}, written(project if path.startswith("/api/projects/") else other)

    fake.answer = answer
    try:
        use(fake.url, Store(tmp_path_factory.mktemp("store")))
    except TrueupError as error:
        assert len(str(error)) < 1_200
        assert "secret" not in str(error)
    assert count <= MOST
