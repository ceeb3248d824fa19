"""Which models of a run can be talked to: the base, and every adapter that is complete and was trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import ModelError, StageError, visible
from trueup.run import naming
from trueup.run.artifacts import Adapter, everything
from trueup.run.changes import base_changes
from trueup.run.identity import base_made_of
from trueup.run.pipeline import Pipeline
from trueup.run.standing import Standing

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

    def find(self, name: str) -> Model:
        """The model of this name. Raises ModelError, naming those there are."""
        if (found := self.models.get(name)) is not None:
            return found
        why = self.refused.get(name, f"there is no model {name[:100]!r} in this run")
        raise ModelError(f"model {name[:100]}", found=why, expected=f"one of {', '.join(self.models)}")


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
        if (why := _fault(pipeline, standing, folder)) is not None:
            refused[name] = why
            continue
        record = Adapter(folder).record()
        made_at = int((folder / "record.json").stat().st_mtime)
        models[name] = model = Model(name, folder, str(record.get("fingerprint", "")), made_at)
        if number in (0, pipeline.run.round):
            short[short_name] = model
            if not variant and (changed := standing.own_faults(stage, pipeline.run.round)):
                stale[name] = visible("; ".join(changed))
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
    return Roster(models | short, refused, stale, default)


def _folders(pipeline: Pipeline) -> Iterator[tuple[str, int, Path]]:
    """(name, round, folder) of each adapter with a record, in the order of the run; round 0: the run's own."""
    for path in (artifact.path for artifact in everything(pipeline.folder)):
        stage = pipeline.stages.get(naming.stage_of(path.name))
        if stage is not None and stage.makes is Adapter:
            number = 0 if stage.per_run else int(path.parent.name.removeprefix("round-"))
            yield (f"round-{number}/{path.name}" if number else path.name), number, path


def _fault(pipeline: Pipeline, standing: Standing, folder: Path) -> str | None:
    """Why the adapter in a folder cannot be used on the run file's base; None where it can."""
    run, artifact = pipeline.run, Adapter(folder)
    try:
        record = artifact.record()
        if altered := artifact.altered(standing.hashes.of):
            return "; ".join(altered)
    except StageError as error:
        return f"{error.where}: {error.found}"
    then, now = record.get("base") or {}, base_made_of(run, pipeline.run_file_dir, standing.hashes)
    if then and (changed := base_changes(then, now, pipeline.run_file_dir)):
        return f"it was trained on another base: {'; '.join(changed)}"
    kind = (record.get("adapter") or {}).get("kind", run.adapter.kind)
    if (kind == "lora") != (run.adapter.kind == "lora"):
        return f"it was trained on the base in {_bits(kind)}, and adapter.kind is now {run.adapter.kind}"
    return None


def _bits(kind: str) -> str:
    return "16 bits" if kind == "lora" else "4 bits"
