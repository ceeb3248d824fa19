"""Our own server on a real PostgreSQL of Debian's: one setting, and the password in no file and no log."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import postgres
import pytest
from click.testing import CliRunner
from ports import free_port
from test_people import session, whoami

from trueup.cli.main import main
from trueup.errors import ServerError
from trueup.feedback import database, environment, people, server
from trueup.feedback.client import Client
from trueup.feedback.connection import connect
from trueup.feedback.screens import screen
from trueup.feedback.tasks import to_task

needs_postgresql = pytest.mark.skipif(postgres.BINARIES is None, reason="no PostgreSQL of Debian's on this machine")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("postgresql://labels:hunter2@127.0.0.1/labels", "a password in the address"),
        ("mysql://labels@127.0.0.1/labels", "no address of a database"),
        ("postgresql://labels@127.0.0.1", "no address of a database"),
        ("postgresql://labels@127.0.0.1:port/labels", "no address of a database"),
        ("postgresql://labels@[::1/labels", "no address of a database"),
        ("postgresql://labels@127.0.0.1/labels?sslmode=require", "no address of a database"),
    ],
)
def test_what_is_no_database_is_refused_and_a_password_not_repeated(address: str, found: str, tmp_path: Path) -> None:
    started = ["labelstudio", "start", "--data-dir", str(tmp_path / "data"), "--database", address]
    result = CliRunner().invoke(main, started)
    assert result.exit_code == 2, result.output
    assert found in result.output and "PGPASSWORD" in result.output and "hunter2" not in result.output
    assert not (tmp_path / "data").exists()


def test_a_database_that_does_not_answer_is_said_before_anything_is_made(tmp_path: Path) -> None:
    address = f"postgresql://labels@127.0.0.1:{free_port()}/labels"
    with pytest.raises(ServerError, match=r"PostgreSQL cannot be used: .*refused"):
        server.start(tmp_path / "data", free_port(), database_url=address)
    assert not (tmp_path / "data").exists()


def test_a_folder_with_projects_in_sqlite_is_not_given_another_database(tmp_path: Path) -> None:
    (tmp_path / environment.DATABASE).touch()
    with pytest.raises(ServerError, match="nothing is moved from one database to another"):
        server.start(tmp_path, free_port(), database_url="postgresql://labels@127.0.0.1:1/labels")


@dataclass
class Place:
    """A running server, and the database that it uses."""

    folder: Path
    database: postgres.Database


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("postgresql") / "labelstudio"
    with postgres.running() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", made.password)
        server.start(folder, free_port(), database_url=made.url)
        yield Place(folder, made)
        server.stop(folder)


@needs_postgresql
@pytest.mark.slow
def test_projects_people_and_judgements_are_there(place: Place) -> None:
    assert not (place.folder / environment.DATABASE).exists()
    connection = connect(place.folder)
    client, kim = Client(connection), people.add(place.folder, "Kim")
    project = client.create_project("on PostgreSQL", screen("thumbs"))
    rows = [{"uid": f"u{n}", "messages": [], "completion": f"answer \x00 {n}"} for n in range(300)]
    tasks = [to_task(row) for row in rows]
    assert (client.publish(project, tasks), client.publish(project, tasks)) == (300, 0)
    browser = session(place.folder, kim)
    given = browser.get(f"/api/projects/{project}/next").json()["id"]
    thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": ["up"]}}
    assert browser.post(f"/api/tasks/{given}/annotations/", json={"result": [thumb]}).status_code == 201
    judged = [task for task in client.pull(project) if task["annotations"]]
    assert [task["annotations"][0]["completed_by"] for task in judged] == [kim.id]
    people.remove(place.folder, kim.email)
    assert whoami(browser) is None
    query = ["psql", place.database.url, "-Atc", "SELECT count(*) FROM task"]
    env = os.environ | {"PGPASSWORD": place.database.password}
    assert subprocess.run(query, env=env, capture_output=True, text=True, check=True).stdout == "300\n"


@needs_postgresql
@pytest.mark.slow
def test_the_password_is_nowhere_and_the_next_start_knows_the_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = CliRunner().invoke(main, ["labelstudio", "status", "--data-dir", str(place.folder)])
    assert f"its data are in {place.database.url}\n" in status.output
    with pytest.raises(ServerError, match=r"it runs already, .* its data in postgresql://labels@"):
        server.start(place.folder, free_port(), database_url="postgresql://labels@127.0.0.1:1/other")
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert files and not [path for path in files if place.database.password.encode() in path.read_bytes()]
    process = server._process(place.folder)
    assert place.database.password not in Path(f"/proc/{process}/cmdline").read_text()
    assert server.stop(place.folder)
    port = int(re.findall(r":(\d+)", json.loads((place.folder / "credentials.json").read_text())["url"])[0])
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(ServerError, match="password authentication failed") as error:
        server.start(place.folder, port)
    assert database.SECRET in str(error.value)
    monkeypatch.setenv("PGPASSWORD", place.database.password)
    again = server.start(place.folder, port)
    headers = {"Authorization": f"Token {again.token}"}
    assert httpx.get(f"{again.url}/api/projects/", headers=headers, trust_env=False).json()["count"] == 1
