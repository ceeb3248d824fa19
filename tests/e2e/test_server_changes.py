"""What happens on the server behind a run's back: accounts and projects are deleted, names repeat, answers are slow."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import serving
from test_collect_people import Labelling, labelling  # noqa: F401 - a fixture
from test_people import session

from trueup.errors import ServerError
from trueup.feedback import people
from trueup.feedback.client import Client
from trueup.feedback.connection import Connection
from trueup.feedback.faults import RequestError
from trueup.run.artifacts import Completions, read_jsonl, write_jsonl
from trueup.run.files import read_json
from trueup.run.stage import Waiting
from trueup.stages import collect


def test_two_runs_of_one_name_have_each_their_own_project(labelling: Labelling, tmp_path: Path) -> None:  # noqa: F811
    twin = tmp_path / "twin"
    twin.mkdir()
    rows = [row | {"uid": f"twin-{row['uid']}"} for row in read_jsonl(labelling.context.run_dir / "completions.jsonl")]
    write_jsonl(twin / "completions.jsonl", rows)
    context = replace(labelling.context, run_dir=twin, out=twin)
    with pytest.raises(Waiting, match="waiting 0/8"):
        collect.run(collect.Config(), context, completions=Completions(twin))
    client = Client(labelling.admin.connection)
    (known,) = (read_json(twin / "store" / "projects.json") or {}).values()
    assert known["id"] != labelling.project
    titles = [labelling.admin.ask("GET", f"/api/projects/{n}/")["title"] for n in (known["id"], labelling.project)]
    assert titles[0] == titles[1]
    assert {task["data"]["uid"] for task in client.pull(labelling.project)} == set(labelling.tasks)
    assert {task["data"]["uid"] for task in client.pull(known["id"])} == {row["uid"] for row in rows}


def test_what_a_person_judged_counts_once_after_the_account_was_deleted(labelling: Labelling) -> None:  # noqa: F811
    place = labelling.context.run.labelstudio.data_dir
    gone = people.add(place, "Sam")
    thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": ["up"]}}
    browser = session(place, gone)
    for uid in ("0a", "1a"):
        assert browser.post(f"/api/tasks/{labelling.tasks[uid]}/annotations/", json={"result": [thumb]}).is_success
    assert "waiting 2/8" in labelling.waiting()
    labelling.admin.ask("DELETE", f"/api/users/{gone.id}/")
    assert "waiting 2/8" in labelling.waiting()
    labelling.judge_all(but=("0a", "1a"))
    metrics = labelling.go()
    rows = list(read_jsonl(labelling.context.out / "annotations.jsonl"))
    assert set(Counter(row["uid"] for row in rows).values()) == {1} and len(rows) == 8
    assert {row["annotator"] for row in rows if row["uid"] in ("0a", "1a")} == {str(gone.id)}
    assert metrics["num_annotators"] == 2


def test_a_project_that_is_deleted_ends_the_wait_with_what_to_do(labelling: Labelling) -> None:  # noqa: F811
    settings = labelling.context.run.labelstudio.model_copy(update={"wait": True, "poll_s": 0.1})
    labelling.context = replace(
        labelling.context, run=labelling.context.run.model_copy(update={"labelstudio": settings})
    )
    labelling.admin.ask("DELETE", f"/api/projects/{labelling.project}/")
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"it is not there \(deleted.*\n.*remove projects\.json"):
        labelling.go()
    assert time.monotonic() - began < 20


def test_a_server_that_is_slow_is_said_and_not_taken_for_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trueup.feedback.api.TIMEOUT_S", 0.1)

    def slow(asked: object) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.3)
        return 200, {}, json.dumps({"tasks": [], "total": 0}).encode()

    with serving(slow) as fake, pytest.raises(RequestError, match=r"no answer \(ReadTimeout") as error:
        Client(Connection(fake.url, "t" * 40)).pull(1)
    assert "look what keeps the server busy" in str(error.value) and "labelstudio start" not in str(error.value)
    assert error.value.passing
