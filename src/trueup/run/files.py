"""Files that survive a power cut: contents reach the disk before the name that promises them does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from trueup.errors import DataError

KEPT = ".kept.jsonl"  # ends the names of what a half-built stage goes on from, and a complete one does without


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until every file and folder below `folder`, and `folder` itself, is on disk; the deepest first."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            if (file := Path(parent, name)).is_file() and not file.is_symlink():
                sync(file)
        sync(Path(parent))


def rename(source: Path, target: Path) -> None:
    """Rename within a folder, or replace `target` when it is a file, and wait until the new name is on disk."""
    source.replace(target)
    sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write beside `path`, then rename: a reader, or a machine that starts again, sees all of the file or none."""
    _write(path, lambda out: out.write(text))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """`write_text` of one JSON row a line."""
    _write(path, lambda out: out.writelines(_line(row) for row in rows))


def write_json(path: Path, value: object) -> None:
    """`write_text` of one JSON value."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, fill: Any) -> None:
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("w", encoding="utf-8") as out:
            fill(out)
            _flush(out)
    except BaseException:
        aside.unlink(missing_ok=True)  # on a full disk it takes space and is of no use
        raise
    rename(aside, path)


def append_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows at the end, on disk when this returns. A line that was left unfinished is ended first."""
    begins = not path.exists()
    with path.open("ab+") as out:
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write("".join(map(_line, rows)).encode())
        _flush(out)
    if begins:
        sync(path.parent)


def _flush(out: IO[Any]) -> None:
    out.flush()
    os.fsync(out.fileno())


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None when there is no such file, or it holds none: it is empty, torn or no UTF-8."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON Lines file that was written whole. Raises DataError on a broken line, or no file."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if (row := _row(line)) is None:
                    raise DataError(
                        f"{path}:{number}",
                        found="not a JSON object",
                        expected="the file as trueup wrote it",
                        next_step="build the stage that wrote it again with --rebuild, or restore the file",
                    )
                yield row
    except FileNotFoundError:
        raise DataError(str(path), found="no such file", expected="the file as trueup wrote it") from None


def read_appended(path: Path) -> tuple[list[dict[str, Any]], int]:
    """(rows, number of lines that are none) of a file written line by line; ([], 0) when there is no file.

    A line is unfinished where a process was killed, the disk was full or the power was cut while it was written.
    """
    found = [_row(line) for line in path.read_bytes().split(b"\n") if line] if path.exists() else []
    rows = [row for row in found if row is not None]
    return rows, len(found) - len(rows)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def file_sha256(path: Path) -> str:
    """The hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed writer left below `folder`: files that were never given their own name."""
    for pattern in ("*.tmp", ".tmp??????"):  # ours, and those of safetensors
        for path in folder.rglob(pattern):
            if path.is_file() and not path.is_symlink():
                path.unlink()


def remove_kept(folder: Path) -> None:
    """Delete what only a half-built stage needs."""
    for path in folder.glob(f"*{KEPT}"):
        path.unlink()
