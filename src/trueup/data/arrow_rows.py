"""Rows of Parquet and Arrow files, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueup.errors import DataError

NUM_ROWS_A_BATCH = 1024  # what is in memory at a time
MAGIC_FILE, MAGIC_STREAM = b"ARROW1", b"\xff\xff\xff\xff"


def parquet(path: Path, stream: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row). Raises DataError on a broken file."""
    import pyarrow.parquet as pq

    yield from _rows(path, "Parquet", lambda: pq.ParquetFile(stream).iter_batches(batch_size=NUM_ROWS_A_BATCH))


def arrow(path: Path, stream: Any, head: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same of an Arrow file, or of a stream of Arrow batches, as `datasets.save_to_disk` writes."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        if head.startswith(MAGIC_FILE):
            reader = pa.ipc.open_file(stream)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from pa.ipc.open_stream(stream)

    yield from _rows(path, "Arrow", batches)


def _rows(path: Path, kind: str, batches: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches():
            names = batch.schema.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(
                    str(path),
                    found=f"columns named twice: {', '.join(twice)}",
                    expected="each once",
                    next_step="rename or drop one of them, and write the file again",
                )
            for row in batch.to_pylist():
                number += 1
                yield number, {name: _without_nulls(value) for name, value in row.items()}
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            str(path), found=f"broken {kind} after row {number}: {said}", next_step="fetch or write the file again"
        ) from None


def _without_nulls(value: Any, depth: int = 0) -> Any:
    """Arrow gives all objects of a column the keys of all others, as nulls: those the writer never wrote go."""
    if depth > 64:
        return value
    if isinstance(value, dict):
        return {key: _without_nulls(one, depth + 1) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one, depth + 1) for one in value]
    return value
