"""Which models of a run can be talked to, and what chooses the best of several answers of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import ModelError, StageError, TrueupError, visible
from trueup.run import naming
from trueup.run.artifacts import Adapter, everything
from trueup.run.pipeline import Pipeline
from trueup.run.standing import Standing
from trueup.talk import chooser
from trueup.talk.chooser import Chooser
from trueup.talk.usable import fault

BASE = "base"


@dataclass(frozen=True)
class Model:
    """A model by the name that records give it: base, sft, or round-1/dpo. `path` is its adapter's, None of the base.

    `made_at` is in seconds since 1970; `fingerprint` is that of the adapter's files.
    """

    name: str
    path: Path | None = None
    fingerprint: str = ""
    made_at: int = 0


@dataclass(frozen=True)
class Roster:
    """`models` by every name they go by, in order; `refused` says why of those that are there and are no good."""

    models: dict[str, Model]
    refused: dict[str, str]
    stale: dict[str, str]  # models that are used as they are, and what changed since they were made
    default: str  # the adapter of the run file's method in its round, else the last one
    chooser: Chooser | TrueupError  # what chooses the best of several answers, or why nothing can

    def find(self, name: str) -> Model:
        """The model of this name. Raises ModelError, naming those there are."""
        if (found := self.models.get(name)) is not None:
            return found
        why = self.refused.get(name, f"there is no model {name[:100]!r} in this run")
        raise ModelError(f"model {name[:100]}", found=why, expected=f"one of {', '.join(self.models)}")

    def chooses(self) -> Chooser:
        """What chooses the best of several answers. Raises TrueupError where nothing can."""
        if isinstance(self.chooser, TrueupError):
            raise self.chooser
        return self.chooser


def roster(pipeline: Pipeline) -> Roster:
    """What is there to talk to. A name without a round is that of the run file's round.

    Raises StageError when no adapter is complete, or none is any good.
    """
    standing = Standing(pipeline)
    models, refused, stale = {BASE: Model(BASE)}, {}, {}
    short: dict[str, Model] = {}
    for name, number, folder in _folders(pipeline):
        short_name = name.rpartition("/")[2]
        stage, variant = naming.split(short_name)
        if (why := fault(pipeline, standing, Adapter(folder))) is not None:
            refused[name] = why
            continue
        record = Adapter(folder).record()
        made_at = int((folder / "record.json").stat().st_mtime)
        models[name] = model = Model(name, folder, str(record.get("fingerprint", "")), made_at)
        if number in (0, pipeline.run.round):
            short[short_name] = model
            if not variant and (changed := standing.own_faults(stage, pipeline.run.round)):
                stale[name] = visible("; ".join(changed))
    by: Chooser | TrueupError
    try:
        by = chooser.find(pipeline, standing)
    except TrueupError as error:
        by = error
    standing.hashes.save()
    if len(models) == 1:
        first = next(stage for stage in pipeline.stages.values() if stage.makes is Adapter)
        raise StageError(
            str(pipeline.folder),
            found="\n  ".join(f"{name} cannot be used: {why}" for name, why in refused.items())
            or "no adapter is complete yet",
            expected="an adapter to talk to",
            next_step=f"trueup {first.name} RUN.yaml" + (" --rebuild" if refused else ""),
        )
    default = pipeline.run.method if pipeline.run.method in short else list(models)[-1]
    return Roster(models | short, refused, stale, default, by)


def _folders(pipeline: Pipeline) -> Iterator[tuple[str, int, Path]]:
    """(name, round, folder) of each adapter with a record, in the order of the run; round 0: the run's own."""
    for path in (artifact.path for artifact in everything(pipeline.folder)):
        stage = pipeline.stages.get(naming.stage_of(path.name))
        if stage is not None and stage.makes is Adapter:
            number = 0 if stage.per_run else int(path.parent.name.removeprefix("round-"))
            yield (f"round-{number}/{path.name}" if number else path.name), number, path
