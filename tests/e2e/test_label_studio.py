"""The real Label Studio server, started and stopped by trueup."""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from trueup.feedback import server

from trueup.errors import ServerError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("labelstudio")
    server.start(folder, free_port())
    yield folder
    assert server.stop(folder)


def test_the_token_works_without_a_click_and_stays_private(data_dir: Path) -> None:
    connection = server.connect(data_dir)
    headers = {"Authorization": f"Token {connection.token}"}
    answer = httpx.get(f"{connection.url}/api/current-user/whoami", headers=headers, trust_env=False)
    assert answer.json()["email"] == "admin@trueup.local"
    assert stat.S_IMODE((data_dir / "credentials.json").stat().st_mode) == 0o600
    assert connection.token not in repr(connection)
    assert connection.token not in (data_dir / "server.log").read_text()


def test_a_second_start_finds_the_running_server(data_dir: Path) -> None:
    assert server.start(data_dir, free_port()) == server.connect(data_dir)


def test_a_taken_port_says_which_to_try(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(ServerError, match=f"labelstudio.port: {port + 1}"):
            server.start(tmp_path, port)
