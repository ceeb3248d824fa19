"""One real Label Studio server, and two tiny 4-bit policies after SFT, for all tests."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
import torch
from ports import free_port
from tiny import make_run

from trueup.feedback import server
from trueup.feedback.api import ATTEMPTS
from trueup.models import device
from trueup.run.pipeline import Pipeline

stamina.set_testing(True, attempts=ATTEMPTS)  # which takes the pauses between attempts away

torch.set_num_threads(1)  # on a busy machine, two threads wait for each other longer than a tiny model takes

# Beside a GPU that this environment's torch cannot use, stages would refuse to run: the tests choose its CPU.
if not torch.cuda.is_available() and device.signs():
    os.environ[device.VISIBLE] = ""

# A shell's background job ignores SIGINT, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("faults", "e2e", "gpu_emulated", "distributed", "notebooks")  # the folders whose files take longest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: not set(LONG) & set(item.path.parts))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A policy that an adapter alone can make certain of a token, for PPO and GRPO; sample is built as well."""
    made = make_run(tmp_path_factory.mktemp("sharp"), sharp=True, num_prompts=10, sft_epochs=6)
    made.execute("sample")
    return made


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
