"""Each request of a publish and a pull fails in each way of a network: nothing is lost, nothing comes twice."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from flaky_proxy import FAULTS, Proxy, before

from trueup.errors import ServerError
from trueup.feedback.client import Client
from trueup.feedback.connection import Connection, connect
from trueup.run.artifacts import Completions, read_jsonl, write_jsonl
from trueup.run.files import read_json
from trueup.run.run_file import LabelStudioConfig, load
from trueup.run.stage import Context, Waiting
from trueup.stages import STAGES, collect

NUM_TASKS, NUM_JUDGED = 60, 30
WHAT_TO_DO = {
    "reset": "run the same command again: what has arrived is found there, and is not sent twice",
    "500": "read the server's log, then run the same command again",
    "502": "wait a minute, then run the same command again",
    "429": "wait a minute, then run the same command again",
    "cut": "run the same command again",
    "login": "if this is a login page, ask its administrator to let requests to /api with a token pass",
}


@dataclass
class Place:
    """A real server, a proxy before it, and completions to judge."""

    direct: Connection
    proxy: Proxy
    completions: Path

    def collect(self, folder: Path, **config: Any) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        run = load(self.completions / "run.yaml", {stage.name: stage.config for stage in STAGES})
        settings = LabelStudioConfig(url=self.proxy.url, data_dir=folder)
        context = Context(run=run.model_copy(update={"labelstudio": settings}), run_dir=folder, out=folder)
        return collect.run(collect.Config(**config), context, completions=Completions(self.completions))

    def publish(self, folder: Path) -> None:
        with pytest.raises(Waiting, match=f"waiting 0/{NUM_TASKS}"):
            self.collect(folder)

    def projects(self) -> dict[str, list[int]]:
        """The ids of all projects, by description."""
        address = f"{self.direct.url}/api/projects/?page_size=1000&include=id,description"
        headers = {"Authorization": f"Token {self.direct.token}"}
        found: dict[str, list[int]] = {}
        for one in httpx.get(address, headers=headers, trust_env=False, timeout=60).json()["results"]:
            found.setdefault(one["description"], []).append(one["id"])
        return found


@pytest.fixture(scope="module")
def place(labelstudio: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("completions")
    (folder / "run.yaml").write_text("name: faults\n")
    rows = [
        {"uid": f"{n:02}", "prompt_id": str(n // 2), "completion": f"answer {n}", "finish": "eos"}
        | {"messages": [{"role": "user", "content": f"question {n // 2}"}]}
        for n in range(NUM_TASKS)
    ]
    write_jsonl(folder / "completions.jsonl", rows)
    direct = connect(labelstudio)
    with before(direct.url) as proxy:
        yield Place(direct, proxy, folder)


@pytest.fixture(autouse=True)
def in_small_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three imports and three pages."""
    monkeypatch.setattr("trueup.feedback.client.BODY_TASKS", 20)
    monkeypatch.setattr("trueup.feedback.listing.PAGE", 25)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", place.direct.token)


def requests(place: Place, folder: Path, **config: Any) -> list[str]:
    """The methods of the requests that are made when none fails."""
    place.proxy.fail("", 0)
    with contextlib.suppress(Waiting):
        place.collect(folder, **config)
    return [method for method, _ in place.proxy.passed]


def says_what_to_do(fault: str, message: str) -> None:
    (expected,) = [said for kind, said in WHAT_TO_DO.items() if fault.startswith(kind)]
    assert expected in message.partition("next: ")[2], message


def publish_failing(place: Place, folder: Path, fault: str, k: int, lasting: bool) -> None:
    """Request `k` of a publish fails, and the same command is typed once more where it did not get through."""
    place.proxy.fail(fault, k, lasting=lasting)
    try:
        place.publish(folder)
        assert not lasting and fault != "login page"
    except ServerError as error:
        says_what_to_do(fault, str(error))
        assert lasting or fault == "login page", f"request {k}: {error}"
        place.proxy.fail("", 0)
        place.publish(folder)
    (known,) = (read_json(folder / "store" / "projects.json") or {}).values()
    assert place.projects()[f"Published by trueup, key {known['key']}."] == [known["id"]], f"request {k}"
    uids = [task["data"]["uid"] for task in Client(place.direct).pull(known["id"])]
    assert sorted(uids) == [f"{n:02}" for n in range(NUM_TASKS)], f"request {k}"


def test_each_request_that_writes_is_done_once_though_its_answer_is_lost(place: Place, tmp_path: Path) -> None:
    methods = requests(place, tmp_path / "without")
    writing = [k for k, method in enumerate(methods, start=1) if method != "GET"]
    assert len(writing) == 4  # a project, and three imports
    for k in writing:
        publish_failing(place, tmp_path / str(k), "reset after", k, lasting=False)


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_request_of_a_publish(fault: str, lasting: bool, place: Place, tmp_path: Path) -> None:
    number = len(requests(place, tmp_path / "without"))
    assert number > 10
    for k in range(1, number + 1):
        publish_failing(place, tmp_path / str(k), fault, k, lasting)


@pytest.fixture(scope="module")
def judged(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published run of which people judged half, and pulled nothing yet."""
    folder = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_API_KEY", place.direct.token)
        place.proxy.fail("", 0)
        place.publish(folder)
    (known,) = (read_json(folder / "store" / "projects.json") or {}).values()
    headers = {"Authorization": f"Token {place.direct.token}"}
    with httpx.Client(base_url=place.direct.url, headers=headers, trust_env=False, timeout=60) as person:
        for task in Client(place.direct).pull(known["id"]):
            if (number := int(task["data"]["uid"])) < NUM_JUDGED:
                value = {"choices": ["down" if number % 2 else "up"]}
                thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": value}
                answer = person.post(f"/api/tasks/{task['id']}/annotations/", json={"result": [thumb]})
                assert answer.status_code == 201
    return folder


def pull_failing(place: Place, judged: Path, folder: Path, fault: str, k: int, lasting: bool) -> None:
    """Request `k` of a pull fails, and the same command is typed once more where it did not get through."""
    enough = {"min_labelled_fraction": NUM_JUDGED / NUM_TASKS}
    shutil.copytree(judged, folder)
    place.proxy.fail(fault, k, lasting=lasting)
    try:
        place.collect(folder, **enough)
        assert not lasting and fault != "login page"
    except ServerError as error:
        says_what_to_do(fault, str(error))
        assert lasting or fault == "login page", f"request {k}: {error}"
        place.proxy.fail("", 0)
        place.collect(folder, **enough)
    for name in ("annotations.jsonl", "store/annotations.jsonl"):
        rows = list(read_jsonl(folder / name))
        assert {row["uid"]: row["up"] for row in rows} == {f"{n:02}": n % 2 == 0 for n in range(NUM_JUDGED)}
        assert Counter(row["annotation_id"] for row in rows).most_common(1)[0][1] == 1, f"{name}, request {k}"


def number_to_pull(place: Place, judged: Path, folder: Path) -> int:
    shutil.copytree(judged, folder)
    number = len(requests(place, folder, min_labelled_fraction=NUM_JUDGED / NUM_TASKS))
    assert number > 6
    return number


def test_the_pages_of_a_pull_are_read_again_where_they_were_cut(place: Place, judged: Path, tmp_path: Path) -> None:
    number = number_to_pull(place, judged, tmp_path / "without")
    for k in (1, number // 2, number):
        pull_failing(place, judged, tmp_path / str(k), "cut JSON", k, lasting=False)


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_request_of_a_pull(fault: str, lasting: bool, place: Place, judged: Path, tmp_path: Path) -> None:
    for k in range(1, number_to_pull(place, judged, tmp_path / "without") + 1):
        pull_failing(place, judged, tmp_path / str(k), fault, k, lasting)


def test_a_reset_in_the_middle_is_told_from_a_server_that_is_not_there(place: Place, tmp_path: Path) -> None:
    place.proxy.fail("reset before", 1, lasting=True)
    with pytest.raises(ServerError) as error:
        place.collect(tmp_path / "reset")
    assert not re.search("labelstudio start|labelstudio.url", str(error.value))
