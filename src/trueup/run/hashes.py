"""Hashes of files that are only read again after the file has changed: a 15 GB base is hashed once, not each call."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trueup.run.files import file_sha256, read_json, write_json

SETTLED_NS = 2_000_000_000  # a younger file could change again without a new time stamp


class Hashes:
    """SHA-256 by file, kept in `path` under the file's size, inode, and times of change of contents and of inode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, list[object]] = read_json(path) or {}
        self.changed = False

    def of(self, file: Path) -> str:
        """The hash of `file`'s contents. Raises OSError when it cannot be read."""
        return str(self._kept("sha256", file, file_sha256))

    def lines(self, file: Path) -> int:
        """How many lines of text `file` has, empty ones left out."""
        return int(str(self._kept("lines", file, _num_lines)))

    def _kept(self, what: str, file: Path, make: Callable[[Path], object]) -> object:
        state, key = file.stat(), f"{what} {file.resolve()}"
        stamp = [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
        known = self.known.get(key)
        if isinstance(known, list) and known[:-1] == stamp:
            return known[-1]
        found = make(file)
        if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_NS:
            self.known[key], self.changed = [*stamp, found], True
        return found

    def save(self) -> None:
        """Keep what was hashed, where there is a folder to keep it in that can be written to."""
        if self.changed and self.path.parent.is_dir():
            try:
                write_json(self.path, self.known)
            except OSError:  # a folder that is only read, a full disk: the hashes are made again
                return
            self.changed = False


def _num_lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())
