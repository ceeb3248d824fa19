"""One writer a run: two trueup processes on the same run would build into the same folders."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trueup.errors import StageError


@contextmanager
def only_writer(run_dir: Path, doing: str) -> Iterator[None]:
    """Hold `run_dir`/.lock within the block. Raises StageError when another process holds it.

    The system lets go of the lock when its process ends, however it ends: there is no stale lock to remove.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StageError(
                doing,
                found=f"another trueup is at work on {run_dir} ({file.read().strip() or 'just started'})",
                expected="one at a time",
                next_step="wait until it ends, or stop it with Ctrl+C; it goes on where it was",
            ) from None
        file.truncate(0)
        file.write(f"{doing}, process {os.getpid()}")
        file.flush()
        yield
        file.truncate(0)
