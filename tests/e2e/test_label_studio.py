"""The real Label Studio server, started and stopped by trueup."""

import socket
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from trueup.errors import ServerError
from trueup.feedback import environment, server
from trueup.feedback.annotations import parse
from trueup.feedback.client import Client
from trueup.feedback.connection import Connection, connect
from trueup.feedback.tasks import to_task

THUMBS = Path(server.__file__).parent / "interfaces" / "thumbs.xml"


def test_the_token_works_without_a_click_and_stays_private(labelstudio: Path) -> None:
    connection = connect(labelstudio)
    headers = {"Authorization": f"Token {connection.token}"}
    answer = httpx.get(f"{connection.url}/api/current-user/whoami", headers=headers, trust_env=False)
    assert answer.json()["email"] == "admin@trueup.local"
    assert stat.S_IMODE((labelstudio / "credentials.json").stat().st_mode) == 0o600
    assert connection.token not in repr(connection)
    assert connection.token not in (labelstudio / "server.log").read_text()


def test_a_server_starts_from_a_migrated_database_without_users(labelstudio: Path) -> None:
    with closing(sqlite3.connect(environment.empty_database(environment.folder()))) as empty:
        assert empty.execute("SELECT count(*) FROM htx_user").fetchone() == (0,)
    with closing(sqlite3.connect(labelstudio / environment.DATABASE)) as ours:
        assert ours.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ours.execute("SELECT count(*) FROM htx_user").fetchone() != (0,)


def test_a_second_start_finds_the_running_server(labelstudio: Path, port: int) -> None:
    assert server.start(labelstudio, port) == connect(labelstudio)


def test_a_taken_port_says_which_to_try(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(ServerError, match=f"labelstudio.port: {port + 1}"):
            server.start(tmp_path, port)


def test_publishing_twice_adds_nothing_and_thumbs_come_back(labelstudio: Path) -> None:
    connection = connect(labelstudio)
    client = Client(connection)
    project = client.create_project("thumbs " * 20, THUMBS.read_text())
    rows = [{"uid": f"u{i}", "messages": [{"role": "user", "content": "q"}], "completion": f"a{i}"} for i in range(3)]
    tasks = [to_task(row) for row in rows]
    assert (client.publish(project, tasks[:2]), client.publish(project, tasks)) == (2, 1)
    first = next(task for task in client.pull(project) if task["data"]["uid"] == "u0")
    thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": ["up"]}}
    headers = {"Authorization": f"Token {connection.token}"}
    address = f"{connection.url}/api/tasks/{first['id']}/annotations/"
    assert httpx.post(address, json={"result": [thumb]}, headers=headers, trust_env=False).status_code == 201
    verdicts = {task["data"]["uid"]: parse(task)[0] for task in client.pull(project)}
    assert {uid: [v.verdict for v in found] for uid, found in verdicts.items()} == {"u0": [True], "u1": [], "u2": []}


def test_a_wrong_token_a_deleted_project_and_a_dead_server_are_said(labelstudio: Path, port: int) -> None:
    connection = connect(labelstudio)
    with pytest.raises(ServerError, match="the token is refused"):
        Client(Connection(connection.url, "0" * 40)).pull(1)
    with pytest.raises(ServerError, match=r"project 987.*not there"):
        Client(connection).pull(987)
    with pytest.raises(ServerError, match="no answer"):
        Client(Connection(f"http://127.0.0.1:{port}", "0" * 40)).pull(1)
