"""One writer per run: two trueup processes on the same run would build into the same folders."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from trueup.errors import StageError

PATIENCE_S = 0.3  # `running` holds the lock for an instant


@dataclass(frozen=True)
class Writer:
    """The process that builds in a run: the stage, and in words which process it is and since when."""

    stage: str
    words: str


@contextmanager
def only_writer(run_dir: Path, doing: str) -> Iterator[None]:
    """Hold `run_dir`/.lock within the block. Raises StageError when another process holds it.

    The system lets go of the lock when its process ends, however it ends: there is no stale lock to remove.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("a+", encoding="utf-8") as file:
        began = time.monotonic()
        while not _taken(file):
            if time.monotonic() - began > PATIENCE_S:
                raise StageError(
                    doing,
                    found=f"another trueup is at work on {run_dir} ({_read(file) or 'just started'})",
                    expected="one at a time",
                    next_step="wait until it ends, or stop it with Ctrl+C; it goes on where it was",
                )
            time.sleep(0.02)
        file.truncate(0)
        file.write(f"{doing}, process {os.getpid()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}")
        file.flush()
        yield
        file.truncate(0)


def running(run_dir: Path) -> Writer | None:
    """Who builds in this run now; None when nobody does."""
    try:
        with (run_dir / ".lock").open("r+", encoding="utf-8") as file:
            if _taken(file):
                return None
            stage, _, words = _read(file).partition(", ")
            return Writer(stage, words)
    except OSError:  # no run yet, or a folder of somebody else
        return None


def _taken(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip()
