"""One real Label Studio server, and two tiny 4-bit policies after SFT, for all tests."""

import fcntl
import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start; read when torch is imported

import pytest
import stamina
import torch
from ports import free_port
from tiny import make_run, open_run

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

# the folders whose files take longest, and those whose files take seconds
LONG, SHORT = {"faults", "e2e", "gpu_emulated", "distributed", "notebooks"}, {"unit", "contract", "fuzz", "golden"}
# what a file says that takes the fixture `labelstudio`, or one that is made of it
ON_SERVER = ("labelstudio: Path", "from test_collect_people import")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first and the short ones last, so that no worker is left alone with a long one at the end."""

    def place(item: pytest.Item) -> int:
        folders = set(item.path.parts)
        return 0 if folders & LONG else 2 if folders & SHORT else 1

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """All files that need Label Studio go to one worker, so that one server is started and not one by each."""
    from xdist.scheduler import LoadFileScheduling

    @cache
    def needs_server(file: str) -> bool:
        text = (config.rootpath / file).read_text(encoding="utf-8")
        return any(words in text for words in ON_SERVER)

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "Label Studio" if needs_server(file) else file

    return ByFile(config, log)


def made_once(
    config: pytest.Config, factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Pipeline:
    """A copy of the run that `make` builds in a folder: the first worker to need it builds it for all."""
    root = factory.getbasetemp()
    place = (root.parent if hasattr(config, "workerinput") else root) / f"made-{name}"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            (place / "run").mkdir()
            make(place / "run")
            (place / "complete").touch()
    return open_run(shutil.copytree(place / "run", factory.mktemp(name) / "run"))


@pytest.fixture(scope="session")
def pipeline(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return made_once(pytestconfig, tmp_path_factory, "tiny", make_run)


@pytest.fixture(scope="session")
def sharp(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A policy that an adapter alone can make certain of a token, for PPO and GRPO; sample is built as well."""

    def make(folder: Path) -> None:
        make_run(folder, sharp=True, num_prompts=10, sft_epochs=6).execute("sample")

    return made_once(pytestconfig, tmp_path_factory, "sharp", make)


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
