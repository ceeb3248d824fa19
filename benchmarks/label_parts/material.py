"""What a job of `budgets` or `policies` needs of its task: answers, test pairs, votes, and what became of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from label_parts import pool, real, voting
from label_parts.features import Row
from label_parts.people import told_apart
from label_parts.tasks import TASKS

SIMULATED, REAL = tuple(TASKS), tuple(real.FILES)
BUDGETS = (40, 100, 200, 400, 1000)
Pair = tuple[int, int]


@dataclass(frozen=True)
class Material:
    """The answers of a task, the pairs (better, worse) of held-out ones by their rows, and all votes of a seed."""

    task: str
    rows: list[Row]
    test: list[Pair]
    votes: Callable[[int], list[Any]]

    def examples(self, budget: int, seed: int) -> tuple[Any, Row]:
        """(what `collect` makes of the first `budget` votes, counts); every prompt trains, none is held out."""
        from trueup.feedback import examples

        train = [row for row in self.rows if not row["held_out"]]
        said = self.votes(seed)[:budget]
        names = ("uid", "prompt_id", "messages", "completion")
        completions = [{name: row[name] for name in names} for row in train]
        made = examples.build(said, completions, held_out=0.0, seed=seed)
        about = {"votes": len(said), "minutes": round(voting.minutes(said, {row["uid"]: row for row in train}), 1)}
        return made, about | {"pairs": len(made.pairs), "thumbs": sum("label" in row for row in made.rows)}


@cache
def of(task: str, out: Path, runs: tuple[Path, ...]) -> Material:
    """The material of a task."""
    if task in REAL:
        rows, pairs, _ = real.read(task)
        return Material(task, rows, real.test_pairs(rows, pairs), lambda seed: real.votes(rows, pairs, seed))
    rows = answers(out, runs)
    values = np.array([TASKS[task].truth(row["prompt"], row["completion"]) for row in rows])
    test = told_apart([row["prompt_id"] for row in rows], values, [i for i, r in enumerate(rows) if r["held_out"]])
    return Material(task, rows, test, lambda seed: voting.thumbs(rows, TASKS[task], seed))


@cache
def answers(out: Path, runs: tuple[Path, ...]) -> list[Row]:
    """The pool of the simulated tasks, read once."""
    return pool.rows_of(out, list(runs))
