"""What a report is made of: every complete stage of a run with its record, and each aligned adapter's evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trueup.run import naming
from trueup.run.artifacts import everything, read_jsonl
from trueup.run.candidates import has_verdict
from trueup.run.goal import won_by
from trueup.run.pipeline import Pipeline
from trueup.run.record import read_record

Row = dict[str, Any]


@dataclass(frozen=True)
class Built:
    """A complete stage. `round` is 0 for the stages of the run itself."""

    round: int
    stage: str
    variant: str
    path: Path
    record: Row = field(repr=False)

    @property
    def name(self) -> str:
        """The name of its folder: sft, or dpo@beta-0.3."""
        return naming.folder_of(self.stage, self.variant)

    @property
    def title(self) -> str:
        """What the page calls it."""
        return f"{self.name}, round {self.round}" if self.round else self.name

    @property
    def metrics(self) -> Row:
        """The figures of its record; empty where it has none."""
        found: Row = self.record.get("metrics") or {}
        return found

    def rows(self, name: str) -> list[Row]:
        """The rows of one of its files; none where it is not there. Raises DataError where it is broken."""
        path = self.path / name
        return list(read_jsonl(path)) if path.is_file() else []


@dataclass(frozen=True)
class Aligned:
    """An adapter that a method made, and its evaluation, if there is one since it was built."""

    built: Built
    evaluation: Built | None
    wins: bool  # it is what the next round starts from

    @property
    def won(self) -> dict[str, float] | None:
        """Its win rate over SFT by its verdict's judge; None where it was not evaluated."""
        return None if self.evaluation is None else won_by(self.evaluation.metrics)

    @property
    def lower_end(self) -> float:
        """Of the interval of its win rate; -inf where it was not evaluated."""
        return -math.inf if self.won is None else self.won["low"]


class Gathered:
    """The complete stages of a run. A record that cannot be read is in `torn`, by the name of its folder."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.run, self.folder = pipeline, pipeline.run, pipeline.folder
        self.stages: list[Built] = []
        self.torn: list[str] = []
        for artifact in everything(self.folder):
            place, path = artifact.path.parent.name, artifact.path
            record = read_record(path / "record.json")
            if record is None:
                self.torn.append(str(path.relative_to(self.folder)))
                continue
            stage, variant = naming.split(path.name)
            number = int(place[6:]) if path.parent != self.folder else 0
            self.stages.append(Built(number, stage, variant, path, record))

    def of(self, stage: str) -> list[Built]:
        """Every complete stage of this name, in order."""
        return [one for one in self.stages if one.stage == stage]

    @cached_property
    def rounds(self) -> list[int]:
        """The rounds that were begun; the first always."""
        found = {int(path.name[6:]) for path in self.folder.glob("round-*") if path.name[6:].isdecimal()}
        return sorted(found | {1})

    @cached_property
    def aligned(self) -> list[Aligned]:
        """Every aligned adapter, in order."""
        methods = {name for name, stage in self.pipeline.stages.items() if stage.alignment}
        judged = {
            (one.round, one.record.get("inputs", {}).get("aligned")): one
            for one in self.of("evaluate")
            if has_verdict(one.record)
        }
        return [
            Aligned(
                one,
                judged.get((one.round, one.record.get("fingerprint"))),
                self.pipeline.winner(one.round) == one.name,
            )
            for one in self.stages
            if one.stage in methods
        ]

    @cached_property
    def headline(self) -> Aligned | None:
        """Of the last round that was evaluated, the adapter that won it, or, if it was not evaluated, the best."""
        known = [one for one in self.aligned if one.evaluation is not None]
        if not known:
            return None
        last = [one for one in known if one.built.round == known[-1].built.round]
        return next((one for one in last if one.wins), None) or max(last, key=lambda one: one.lower_end)


def evenly(some: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spaced."""
    return list(some[:: max(1, -(-len(some) // most))])[:most]
