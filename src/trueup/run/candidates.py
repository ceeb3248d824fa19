"""The aligned adapters of a round, each with the verdict on it: those that may be the round's winner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.run import naming
from trueup.run.artifacts import everything
from trueup.run.goal import won_by
from trueup.run.record import read_record


@dataclass(frozen=True)
class Candidate:
    """An aligned adapter, and the figures of its evaluation; None where it was not evaluated since it was built."""

    name: str  # of its folder: dpo, or dpo@beta-0.3
    figures: dict[str, Any] | None
    overrides: tuple[str, ...]  # with which it was built

    @property
    def lower_end(self) -> float:
        """The lower end of the interval of its win rate; -inf where it was not evaluated."""
        return -math.inf if self.figures is None else won_by(self.figures)["low"]


def candidates(run_dir: Path, number: int, methods: list[str]) -> list[Candidate]:
    """Those of round `number` that one of `methods` made, in the order of the pipeline, variants by name."""
    here = [artifact.path for artifact in everything(run_dir) if artifact.path.parent.name == f"round-{number}"]
    records = {path.name: record for path in here if (record := read_record(path / "record.json")) is not None}
    verdicts = {
        record.get("inputs", {}).get("aligned"): record["metrics"]
        for name, record in records.items()
        if naming.stage_of(name) == "evaluate" and has_verdict(record)
    }
    return [
        Candidate(name, verdicts.get(record.get("fingerprint")), tuple(record.get("overrides", ())))
        for name, record in records.items()
        if naming.stage_of(name) in methods
    ]


def has_verdict(record: dict[str, Any]) -> bool:
    """Whether an evaluation's record has the win rate that its verdict is about; one that was edited may not."""
    try:
        return isinstance(won_by(record["metrics"])["low"], int | float)
    except (KeyError, TypeError, StopIteration):
        return False


def best(found: list[Candidate]) -> Candidate | None:
    """The one whose win rate has the highest lower end, the first of equals; None where none was evaluated."""
    judged = [one for one in found if one.figures is not None]
    return max(judged, key=lambda one: one.lower_end, default=None)
