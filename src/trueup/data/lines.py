"""Lines of a text file, each of bounded length, with the place of what is not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueup.errors import DataError

MAX_BYTES = 2**26  # of one line, or one JSON value: more is no row, but a broken file or a trap
CHUNK = 2**16


class Lines:
    """Iterates (number from 1, line); `start` is the byte at which the present line begins.

    Lines end with a line feed, or, where the file has none, with the carriage return of old Macs. Raises DataError on
    a line of more than 64 MiB.
    """

    def __init__(self, stream: Any, path: Path, start: int = 0) -> None:
        self._stream, self._path, self.start = stream, path, start

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        head = self._stream.peek(CHUNK)
        found = self._by_carriage_return() if b"\r" in head and b"\n" not in head else self._by_line_feed()
        length = 0
        for number, line in enumerate(found, start=1):
            if len(line) >= MAX_BYTES:
                raise self.too_long(number)
            self.start += length
            length = len(line)
            yield number, line

    def too_long(self, number: int) -> DataError:
        return DataError(
            str(self._path),
            found=f"line {number} is longer than {MAX_BYTES >> 20} MiB",
            expected="a row on each line",
            next_step="look whether the file holds rows at all, and write each on a line of its own",
        )

    def _by_line_feed(self) -> Iterator[bytes]:
        while line := self._stream.readline(MAX_BYTES):
            yield line

    def _by_carriage_return(self) -> Iterator[bytes]:
        rest = b""
        while chunk := self._stream.read(CHUNK):
            *whole, rest = (rest + chunk).split(b"\r")
            yield from (line + b"\n" for line in whole)
            if len(rest) >= MAX_BYTES:
                yield rest
        if rest:
            yield rest


def as_windows_1252(line: bytes, error: UnicodeDecodeError) -> str:
    """How the bytes around one that is not UTF-8 read in the encoding that Excel saves `CSV` in."""
    return line[max(error.start - 12, 0) : error.start + 12].decode("windows-1252", "replace").strip()
