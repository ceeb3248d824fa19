"""Files become records, one at a time: JSONL, JSON, CSV, TSV, Parquet, Arrow, text, any of them gzipped; the hub."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.data import arrow_rows, csv_rows, hub, json_rows
from trueup.data.faults import Faults
from trueup.data.folders import expand
from trueup.data.formats import detect
from trueup.data.kinds import READ, refuse_unreadable
from trueup.data.lines import CHUNK, Lines, as_windows_1252
from trueup.errors import DataError

BOM = b"\xef\xbb\xbf"
Records = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class DataFile:
    """One file, or a split of a data set of the hub. `number` tells files of one source apart."""

    path: Path
    number: int = 0
    name: str = ""  # said before a line where a source is several files

    def at(self, line: int, unit: str = "line") -> str:
        """`line 17`, or `part-2.jsonl, line 17`."""
        return f"{self.name}, {unit} {line}" if self.name else f"{unit} {line}"

    def records(self, faults: Faults) -> Records:
        """(line or row number from 1, record); what cannot be read goes to `faults`. Raises DataError on lost files."""
        if str(self.path).startswith(hub.HUB):
            yield from hub.rows(str(self.path))
            return
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for, and a device never ends
            raise DataError(
                str(self.path),
                found="not a regular file",
                expected="a file, which can be read more than once",
                next_step="write the rows into a file, and name that",
            )
        try:
            with _opened(self.path) as stream:
                yield from self._of_stream(stream, faults)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                str(self.path), found="no such file", next_step="correct the path, or put the file there"
            ) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(str(self.path), found=f"broken gzip: {error}", next_step="fetch the file again") from None
        except OSError as error:
            raise DataError(
                str(self.path),
                found=f"cannot be read: {error.strerror or error}",
                next_step="get the right to read it, or copy it again",
            ) from None

    def _of_stream(self, stream: Any, faults: Faults) -> Records:
        head: bytes = stream.peek(CHUNK)
        refuse_unreadable(self.path, head)
        marked = head.startswith(BOM)
        if marked:
            stream.read(len(BOM))
        name = self.path.name.lower().removesuffix(".gz")
        text = head.removeprefix(BOM).lstrip()
        lines = Lines(stream, self.path, len(BOM) if marked else 0)
        if head.startswith(b"PAR1"):
            yield from arrow_rows.parquet(self.path, stream)
        elif head.startswith((arrow_rows.MAGIC_FILE, arrow_rows.MAGIC_STREAM)):
            yield from arrow_rows.arrow(self.path, stream, head)
        elif name.endswith((".csv", ".tsv")):
            yield from self._csv(lines, faults)
        elif name.endswith(".txt"):
            yield from self._text(lines, faults)
        elif text.startswith(b"[") or json_rows.INDENTED.match(text):
            yield from self._json(stream, faults)
        elif text.startswith(b"{") or name.endswith((".jsonl", ".json")):
            yield from self._jsonl(lines, faults)
        else:
            raise DataError(str(self.path), found="an unknown kind of file", expected=READ)

    def _jsonl(self, lines: Lines, faults: Faults) -> Records:
        import orjson

        for number, line in lines:
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                text = self._decoded(line, number, lines, faults)
                if text is None or not text.strip():
                    continue
                try:
                    value = json_rows.loads(text)
                except json_rows.NotJSON as error:
                    faults.add(self.number, number, "not JSON", f"{self.at(number)}: not JSON ({error})")
                    continue
            yield from self._objects(number, value, "line", faults)

    def _json(self, stream: Any, faults: Faults) -> Records:
        number = 0
        try:
            for value in json_rows.values(stream):
                number += 1
                yield from self._objects(number, value, "row", faults)
        except (json_rows.NotJSON, UnicodeDecodeError) as error:
            kind = "not JSON" if isinstance(error, json_rows.NotJSON) else "not UTF-8"
            words = f"{self.at(number + 1, 'row')}: {kind} ({error}); nothing after it was read"
            faults.add(self.number, number + 1, kind, words)

    def _objects(self, number: int, value: Any, unit: str, faults: Faults) -> Records:
        """The object itself, or, of a file's first, the rows that it holds."""
        if number == 1 and value and type(value) is dict:
            json_rows.refuse_columns(value, self.path)
        if type(value) is not dict:
            words = f"{self.at(number, unit)}: {type(value).__name__}, expected an object"
            faults.add(self.number, number, "no object", words)
        elif number > 1 or detect(value) is not None or (rows := json_rows.rows_in(value, self.path)) is None:
            yield number, value
        else:
            for number, row in enumerate(rows, start=1):
                if isinstance(row, dict):
                    yield number, row
                else:
                    faults.add(self.number, number, "no object", f"{self.at(number, 'row')}: no object")

    def _csv(self, lines: Lines, faults: Faults) -> Records:
        undecodable = 0  # the last line that was not UTF-8

        def texts() -> Iterator[str]:
            nonlocal undecodable
            for number, line in lines:
                text = self._decoded(line, number, lines, faults)
                if text is None:
                    undecodable, text = number, line.decode("utf-8", "replace")
                yield text

        for number, row in csv_rows.rows(texts(), str(self.path)):
            if undecodable >= number:
                continue
            if row is None:
                faults.num_blank += 1
            elif isinstance(row, csv_rows.NotCSV):
                faults.add(self.number, number, "not CSV", f"{self.at(number)}: {row}")
            else:
                yield number, row

    def _text(self, lines: Lines, faults: Faults) -> Records:
        for number, line in lines:
            text = self._decoded(line, number, lines, faults)
            if text is not None and text.strip():
                yield number, {"text": text}

    def _decoded(self, line: bytes, number: int, lines: Lines, faults: Faults) -> str | None:
        """The line as text; None, and a fault naming the byte, when it is not UTF-8."""
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            seen = as_windows_1252(line, error)
            words = (
                f"{self.at(number)}: byte {lines.start + error.start} is not UTF-8; as Windows-1252 it reads {seen!r}"
            )
            faults.add(self.number, number, "not UTF-8", words)
            return None


def files_of(path: Path) -> tuple[list[DataFile], list[str]]:
    """(the files that a source's path means, names of those beside them that are not read). Raises as `expand` does."""
    if str(path).startswith(hub.HUB):
        return [DataFile(path)], []
    found, not_read = expand(path)
    if found == [path]:
        return [DataFile(path)], []
    base = path if path.is_dir() else path.parent
    named = [str(file.relative_to(base)) if file.is_relative_to(base) else str(file) for file in found]
    return [DataFile(file, n, name) for n, (file, name) in enumerate(zip(found, named, strict=True))], [
        file.name for file in not_read
    ]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A buffered binary stream; gzip is told by its first bytes, not by the name."""
    raw: Any
    with path.open("rb", buffering=CHUNK) as raw:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(raw, "rb") as stream:
                yield stream
        else:
            yield raw
