"""Answers that are finished, kept in the half-built stage: one that was killed goes on behind them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from trueup.run.files import KEPT, append_jsonl, read_appended
from trueup.sampling.types import Sampled


class Kept:
    """Chunks of answers in the file `<folder>/<name>.kept.jsonl`, a line each, which the complete stage does without.

    A half-built folder belongs to one policy and one section of the run file; a chunk is found by its prompts and its
    seed. A line that was torn counts as not sampled.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}{KEPT}"
        self.seconds = 0.0  # that all answers took, those of earlier processes too
        self.num_resumed = 0  # answers that an earlier process sampled
        self.ran: Counter[str] = Counter()  # what sampled them, and how many answers each
        self._chunks: dict[str, list[Sampled]] = {}
        rows, _ = read_appended(self._path)
        for row in rows:
            self._chunks[row["key"]] = [Sampled(**answer) for answer in row["answers"]]
            self.seconds += row["seconds"]
            self.num_resumed += len(row["answers"])
            self.ran[row.get("ran", "not noted")] += len(row["answers"])

    def get(self, key: str) -> list[Sampled] | None:
        """The answers of a chunk, in the order of its prompts; None when it has to be sampled."""
        return self._chunks.get(key)

    def add(self, key: str, answers: Sequence[Sampled], seconds: float, ran: str) -> None:
        """Keep the answers of a chunk, and what sampled them, on disk when this returns."""
        written = [asdict(answer) for answer in answers]
        append_jsonl(self._path, [{"key": key, "seconds": seconds, "ran": ran, "answers": written}])
        self.seconds += seconds
        self.ran[ran] += len(written)


def key_of(prompts: list[list[int]], seed: int) -> str:
    """The name of a chunk: a hash of its prompts (token ids, in order) and of the seed they are answered with."""
    return hashlib.sha256(f"{seed} {prompts}".encode()).hexdigest()
