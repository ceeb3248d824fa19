"""Clean, deduplicate, split by prompt, write Parquet: what comes out is read by trueup without a fault."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueup import __version__
from trueup.data.closer import NearDuplicates
from trueup.data.example import Example
from trueup.data.judgement_rows import as_judgements
from trueup.data.leaks import WANTED
from trueup.data.sources import Reader, unusable
from trueup.data.values import same_text
from trueup.errors import DataError
from trueup.run import files
from trueup.run.data_config import Source
from trueup.run.files import file_sha256, write_json

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
BATCH = 2048  # rows of a Parquet row group
Row = dict[str, Any]


def prepare(
    sources: Mapping[str, list[Source]],
    out: Path,
    *,
    seed: int = 0,
    held_out: float = 0.1,
    near: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Write a Parquet file for each field, and record.json: what was dropped and why, hashes of what went in and out.

    With prompts of `held_out` among the sources, training rows with the same prompt are dropped; without, the share
    `held_out` of the prompts is set aside into a file of its own. `near` drops near duplicates too. Raises DataError
    when `out` exists, or when nothing is left of a field.
    """
    if out.exists():
        raise DataError(str(out), found="it exists already", next_step="name another folder with --out")
    aside = out.with_name(f"{out.name}.partial")
    aside.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"version": __version__, "seed": seed, "fields": {}}
    fields = sorted(sources, key=lambda field: field != "held_out")  # what is held out is known first
    kept_apart: set[str] = set()
    for field in fields:
        split = None if "held_out" in sources else held_out
        writer = _Field(field, sources[field], seed, split, near, kept_apart)
        record["fields"][field] = writer.write(aside, say)
        if field == "held_out":
            kept_apart = writer.prompts
    files.sync_tree(aside)
    write_json(aside / "record.json", record)
    files.rename(aside, out)
    return record


class _Field:
    """One field of the run file, or a file by itself."""

    def __init__(
        self, name: str, sources: list[Source], seed: int, split: float | None, near: bool, apart: set[str]
    ) -> None:
        self.name, self.sources, self.seed, self.split, self.apart = name, sources, seed, split, apart
        self.dropped: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()  # fields that say something and are not written
        self.prompts: set[str] = set()
        self._seen: set[bytes] = set()
        self._near = NearDuplicates() if near else None

    def write(self, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        writers: dict[str, Any] = {}
        waiting: dict[str, list[Row]] = {}
        num_rows: Counter[str] = Counter()

        def flush(name: str) -> None:
            table = pa.Table.from_pylist(waiting[name], schema=writers[name].schema if name in writers else None)
            if name not in writers:
                writers[name] = stack.enter_context(pq.ParquetWriter(folder / name, table.schema))
            writers[name].write_table(table)
            num_rows[name] += len(waiting[name])
            waiting[name] = []
            say(f"{self.name}: {sum(num_rows.values()):,} rows written")

        with ExitStack() as stack:
            for name, row in self._rows():
                waiting.setdefault(name, []).append(row)
                if len(waiting[name]) == BATCH:
                    flush(name)
            for name in [name for name, rows in waiting.items() if rows]:
                flush(name)
        if not num_rows:
            reasons = ", ".join(f"{why}: {count}" for why, count in self.dropped.items())
            raise DataError(self.name, found=f"nothing is left ({reasons})", expected="usable rows")
        return {
            "sources": {str(p): _sha256_of(p) for s in self.sources for p in s.paths()},
            "dropped": dict(self.dropped),
            "unused_fields": dict(self.unused),
            "written": {name: {"rows": n, "sha256": file_sha256(folder / name)} for name, n in num_rows.items()},
        }

    def _rows(self) -> Iterator[tuple[str, Row]]:
        """(file name, row) of what is kept."""
        for number, source in enumerate(self.sources):
            reader = Reader(source, wanted := WANTED.get(self.name), keeps_barred=wanted in (None, "preferences"))
            for (file, line), example in reader:
                if example.has_tools:
                    raise DataError(
                        f"{source.path}, {reader.place((file, line))}",
                        found="tools or tool calls, which prepare does not write",
                        next_step="name the file in the run file as it is",
                    )
                clean = _clean(example)
                texts = _texts(clean)
                key = hashlib.sha256("\0".join(texts).encode()).digest()
                prompt = _normal(clean)
                if key in self._seen:
                    self.dropped["exact duplicate"] += 1
                elif prompt in self.apart:
                    self.dropped["prompt is held out"] += 1
                elif self._near is not None and self._near.add((number << 16 | file, line), "\n".join(texts)):
                    self.dropped["near duplicate"] += 1
                else:
                    self._seen.add(key)
                    if self.name == "held_out":
                        self.prompts.add(prompt)
                    yield from ((self._file_of(prompt), row) for row in as_records(clean, self.name))
            self.dropped += unusable(reader)
            self.unused += reader.unused

    def _file_of(self, prompt: str) -> str:
        """By a seeded hash of the prompt: rows of one prompt stay together, and the same seed splits the same way."""
        if self.split is None:
            return f"{self.name}.parquet"
        number = int.from_bytes(hashlib.sha256(f"{self.seed}\0{prompt}".encode()).digest()[:8], "big")
        return f"{self.name}.held_out.parquet" if number / 2**64 < self.split else f"{self.name}.parquet"


def as_records(example: Example, field: str) -> list[Row]:
    """The example in the format trueup reads it from again: a row, or one for each person who is told apart."""
    if example.verdicts and field not in ("prompts", "held_out"):
        return as_judgements(example)
    return [_as_record(example, field)]


def _as_record(example: Example, field: str) -> Row:
    if field in ("prompts", "held_out") or (example.completion is None and example.prompt):
        return {"prompt": example.prompt}
    if not example.prompt:
        return {"text": example.completion}
    if example.rejected is not None:
        pair = {"prompt": example.prompt, "chosen": example.completion, "rejected": example.rejected}
        return pair | {"votes_for": example.votes[0], "votes_against": example.votes[1]}
    if example.label is not None:
        thumb = {"prompt": example.prompt, "completion": example.completion}
        return thumb | {"up": example.votes[0], "down": example.votes[1]}
    return {"messages": [*example.prompt, {"role": "assistant", "content": example.completion}]}


def _clean(example: Example) -> Example:
    """Without control characters, which no tokenizer and few servers expect."""

    def cleaned(text: str | None) -> str | None:
        return None if text is None else CONTROL.sub("", text)

    return replace(
        example,
        prompt=[turn | {"content": CONTROL.sub("", turn["content"])} for turn in example.prompt],
        completion=cleaned(example.completion),
        rejected=cleaned(example.rejected),
        sides=None if example.sides is None else (cleaned(example.sides[0]) or "", cleaned(example.sides[1]) or ""),
    )


def _texts(example: Example) -> list[str]:
    turns = [turn["content"] for turn in example.prompt]
    said = repr(example.verdicts) if example.verdicts else str(example.label)
    return [*turns, example.completion or "", example.rejected or "", said]


def _normal(example: Example) -> str:
    """The prompt, or the text where there is none, in the form in which prompts are compared."""
    said = [turn["content"] for turn in example.prompt if turn["role"] != "system"] or [example.completion or ""]
    return same_text("\n".join(said))


def _sha256_of(path: Path) -> Any:
    if path.is_dir():
        return {str(file.relative_to(path)): file_sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return file_sha256(path) if path.is_file() else None
