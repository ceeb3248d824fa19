"""One real Label Studio server for all tests of this folder."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from trueup.feedback import server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def labelstudio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running server."""
    folder = tmp_path_factory.mktemp("labelstudio")
    server.start(folder, free_port())
    yield folder
    assert server.stop(folder)
