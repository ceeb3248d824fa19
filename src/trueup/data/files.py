"""Files become records, one at a time: JSONL, JSON, CSV, TSV, Parquet, text, any of them gzipped; folders; the hub."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trueup.data.faults import Faults
from trueup.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
BOM = b"\xef\xbb\xbf"
OTHER_BOMS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
HUB = "hub:"
NUM_ROWS_A_BATCH = 1024  # of Parquet: what is in memory at a time


@dataclass(frozen=True)
class DataFile:
    """One file, or a split of a data set of the hub. `number` tells files of one source apart."""

    path: Path
    number: int = 0
    name: str = ""  # said before a line where a source is several files

    def at(self, line: int, unit: str = "line") -> str:
        """`line 17`, or `part-2.jsonl, line 17`."""
        return f"{self.name}, {unit} {line}" if self.name else f"{unit} {line}"

    def records(self, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line or row number from 1, record); what cannot be read goes to `faults`. Raises DataError on lost files."""
        if str(self.path).startswith(HUB):
            yield from _hub(str(self.path))
            return
        try:
            with _opened(self.path) as stream:
                yield from self._of_stream(stream, faults)
        except FileNotFoundError:
            raise DataError(
                str(self.path), found="no such file", next_step="mend the data section of the run file"
            ) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(str(self.path), found=f"broken gzip: {error}", next_step="fetch the file again") from None
        except OSError as error:
            raise DataError(str(self.path), found=f"cannot be read: {error.strerror}") from None

    def _of_stream(self, stream: Any, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        head: bytes = stream.peek(4096)[:4096]
        for mark, encoding in OTHER_BOMS.items():
            if head.startswith(mark):
                raise _encoding(self.path, f"byte 0 begins a {encoding} mark", encoding)
        if head.startswith(BOM):
            stream.read(len(BOM))
        name = self.path.name.lower().removesuffix(".gz")
        text = head.removeprefix(BOM).lstrip()
        if head.startswith(b"PAR1"):
            yield from _parquet(self.path, stream)
        elif name.endswith((".csv", ".tsv")):
            yield from self._csv(stream, faults)
        elif name.endswith(".txt"):
            yield from self._text(stream, faults)
        elif text.startswith(b"["):
            yield from self._json(stream, faults)
        elif text.startswith(b"{") or name.endswith((".jsonl", ".json")):
            yield from self._jsonl(stream, faults)
        else:
            raise DataError(str(self.path), found="an unknown kind of file", expected=", ".join(SUFFIXES) + ", or .gz")

    def _jsonl(self, stream: IO[bytes], faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        import orjson

        for number, line in enumerate(stream, start=1):
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                text = self._decoded(line, number, stream, faults)
                if text is None or not text.strip():
                    continue
                try:
                    value = json.loads(text)  # NaN and whole numbers beyond 64 bits, which orjson refuses
                except json.JSONDecodeError as error:
                    words = f"{self.at(number)}: not JSON ({error.msg} at column {error.colno})"
                    faults.add(self.number, number, "not JSON", words)
                    continue
            if type(value) is dict:
                yield number, value
            else:
                self._no_object(number, value, "line", faults)

    def _no_object(self, number: int, value: Any, unit: str, faults: Faults) -> None:
        words = f"{self.at(number, unit)}: {type(value).__name__}, expected an object"
        faults.add(self.number, number, "no object", words)

    def _decoded(self, line: bytes, number: int, stream: IO[bytes], faults: Faults) -> str | None:
        """The line as text; None, and a fault naming the byte, when it is not UTF-8."""
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            offset = stream.tell() - len(line) + error.start
            seen = line[max(error.start - 12, 0) : error.start + 12].decode("windows-1252", "replace").strip()
            words = f"{self.at(number)}: byte {offset} is not UTF-8; as Windows-1252 it reads {seen!r}"
            faults.add(self.number, number, "not UTF-8", words)
            return None

    def _json(self, stream: IO[bytes], faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        import ijson

        number = 0
        try:
            for number, value in enumerate(ijson.items(stream, "item", use_float=True), start=1):
                if isinstance(value, dict):
                    yield number, value
                else:
                    self._no_object(number, value, "row", faults)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            said = str(error).splitlines()[0].strip()
            kind = "not UTF-8" if "utf" in said.lower() else "not JSON"
            words = f"{self.at(number + 1, 'row')}: {kind} ({said}); nothing after it was read"
            faults.add(self.number, number + 1, kind, words)

    def _csv(self, stream: IO[bytes], faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        csv.field_size_limit(2**31 - 1)
        undecodable = 0  # the last line that was not UTF-8

        def lines() -> Iterator[str]:
            nonlocal undecodable
            for number, line in enumerate(stream, start=1):
                text = self._decoded(line, number, stream, faults)
                if text is None:
                    undecodable, text = number, line.decode("utf-8", "replace")
                yield text

        text = lines()
        header_line = next(text, "")
        reader = csv.reader([header_line], delimiter=(delimiter := _delimiter(header_line)), strict=True)
        header = [name.strip() for name in next(reader, [])]
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(
                f"{self.path}:1", found=f"columns named twice: {', '.join(twice)}", expected="each column once"
            )
        reader, before = csv.reader(text, delimiter=delimiter, strict=True), 1
        while True:
            first = before + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                before = reader.line_num + 1
                faults.add(self.number, first, "not CSV", f"{self.at(first)}: not CSV ({error})")
                continue
            before = reader.line_num + 1
            if undecodable >= first or not fields:
                continue
            if len(fields) != len(header):
                words = f"{self.at(first)}: {len(fields)} fields, expected {len(header)} as in the first line"
                faults.add(self.number, first, "not CSV", words)
            else:
                yield first, dict(zip(header, fields, strict=True))

    def _text(self, stream: IO[bytes], faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(stream, start=1):
            text = self._decoded(line, number, stream, faults)
            if text is not None and text.strip():
                yield number, {"text": text}


def files_of(path: Path) -> list[DataFile]:
    """The file itself, or all data files of a folder, sorted. Raises DataError when there is none."""
    if str(path).startswith(HUB) or not path.is_dir():
        return [DataFile(path)]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.name.lower().removesuffix(".gz").endswith(SUFFIXES) and not file.name.startswith((".", "record.json"))
    )
    if not found:
        raise DataError(str(path), found="no data file in this folder", expected=", ".join(SUFFIXES) + ", or .gz")
    return [DataFile(file, number, str(file.relative_to(path))) for number, file in enumerate(found)]


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _encoding(path: Path, found: str, encoding: str) -> DataError:
    return DataError(
        str(path),
        found=found,
        expected="UTF-8",
        next_step=f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}",
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A buffered binary stream; gzip is told by its first bytes, not by the name."""
    with path.open("rb") as raw:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(raw, "rb") as stream:
                yield stream
        else:
            yield raw


def _parquet(path: Path, stream: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=NUM_ROWS_A_BATCH)
        yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
    except pyarrow.ArrowException as error:
        raise DataError(str(path), found=f"broken Parquet: {error}", next_step="fetch the file again") from None


def _hub(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """`hub:owner/name` or `hub:owner/name:split`, streamed."""
    import datasets

    identifier, _, split = name.removeprefix(HUB).partition(":")
    try:
        rows = datasets.load_dataset(identifier, split=split or "train", streaming=True)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise DataError(
            name, found=f"cannot be fetched: {error}", expected="hub:owner/name or hub:owner/name:split"
        ) from error
    yield from enumerate((dict(row) for row in rows), start=1)
