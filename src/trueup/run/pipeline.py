"""What one can do with a run: build a stage, look where it stands, look at its tokens before it trains."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trueup import ranks
from trueup.errors import PreflightError, StageError, TrueupError
from trueup.run import base
from trueup.run.artifacts import Artifact, Completions, Report
from trueup.run.building import build
from trueup.run.chain import Chain
from trueup.run.lock import only_writer
from trueup.run.run_file import RunFile
from trueup.run.stage import Checked, Context, Metrics, Stage
from trueup.run.standing import Faults, Standing, State

__all__ = ["Pipeline", "State"]


class Pipeline(Chain):
    """One run: its file, its stages, its folder."""

    def __init__(
        self, run: RunFile, stages: tuple[Stage, ...], root: Path = Path("runs"), overrides: tuple[str, ...] = ()
    ) -> None:
        super().__init__(run, stages, root / run.name)
        self.overrides = overrides  # of the run file, as typed

    def with_run(self, run: RunFile) -> Pipeline:
        """The same stages and folder with other settings."""
        return Pipeline(run, tuple(self.stages.values()), self.folder.parent, self.overrides)

    def in_round(self, number: int) -> Pipeline:
        """The same run in another round."""
        return self.with_run(self.run.model_copy(update={"round": number}))

    def execute(
        self, name: str, rebuild: bool = False, *, use_stale: bool = False, discard_labels: bool = False
    ) -> bool:
        """Build one stage; False when it is complete already. Of several ranks each calls it, and the first decides.

        Raises StageError on drift, on a missing input, on a stale one without `use_stale`, where people's judgements
        would be set aside without `discard_labels`, on a full disk, and while another process builds in this run.
        Raises ModelError when there is no such base.
        """
        stage = self.stages[name]
        with ExitStack() as held:
            ranks.from_first(lambda: held.enter_context(only_writer(self.folder, name)))
            standing = Standing(self)
            try:
                todo = ranks.from_first(lambda: self._todo(standing, stage, rebuild, use_stale, discard_labels))
                if todo is not None:
                    inputs, said = todo
                    build(stage, standing, inputs, said, anew=rebuild)
                return todo is not None
            finally:
                if ranks.is_first():
                    standing.hashes.save()

    def _todo(
        self, standing: Standing, stage: Stage, rebuild: bool, use_stale: bool, discard_labels: bool
    ) -> tuple[Mapping[str, Artifact], dict[str, Any]] | None:
        """(inputs, what to say in the record) of a stage that is to be built; None when it is complete already."""
        name, final = stage.name, self.path(stage.name)
        inputs = self.inputs(stage)
        if stage.on_base and (fault := base.fault(self.run.model.base)):
            raise fault
        stale = standing.stale_inputs(stage)
        if stale and not use_stale:
            raise self._stale(name, stale)
        artifact = stage.makes(final)
        if artifact.is_there() and not rebuild:
            artifact.record()
            if found := standing.own_faults(name, self.run.round):
                raise self._drifted(name, found, standing.remembered(name, found))
            return None
        if artifact.is_there() and not discard_labels and (count := stage.judged(self.folder, final)):
            raise StageError(
                name,
                found=f"people have judged {count} of these completions, and their judgements would be set aside",
                expected="a decision: only judgements on texts that come out the same again still count",
                next_step=f"to go on anyway: trueup {name} RUN.yaml --rebuild --discard-labels"
                + " --use-stale" * bool(stale),
            )
        said = {
            "overrides": list(self.overrides),
            "stale_inputs": {f"{other}, round {number}": found for (other, number), found in stale.items()},
        }
        return inputs, said

    def _stale(self, name: str, stale: Faults) -> StageError:
        (first, number), _ = next(iter(stale.items()))
        return StageError(
            name,
            found="\n  ".join(
                f"it builds on a stale {self.named(*at)}: {'; '.join(found)}" for at, found in stale.items()
            ),
            next_step=f"{self.command(first, number, ' --rebuild')}\n"
            f"  or, on the old one: {self.command(name, self.run.round, ' --use-stale')}",
        )

    def _drifted(self, name: str, found: list[str], remembered: tuple[str, ...]) -> StageError:
        keep = "undo the change"
        if remembered:
            keep = "write what it was built with into the run file, or add it to the command: " + " ".join(
                f"--set {shlex.quote(override)}" for override in remembered
            )
        return StageError(
            name,
            found="; ".join(found) + " since this was built",
            next_step=f"{keep}; or build it again: trueup {name} RUN.yaml --rebuild",
        )

    def states(self) -> list[State]:
        """One state for each stage of this run, in order."""
        return Standing(self).states()

    def says(self, name: str) -> list[str]:
        """The figures of a complete stage that matter, and what is off with them.

        Raises StageError when its record lacks them.
        """
        stage = self.stages[name]
        artifact = stage.makes(self.path(name))
        try:
            return stage.says(artifact.record().get("metrics", {}), self.run)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StageError(
                str(artifact.path / "record.json"),
                found=f"its figures are not those of {name} ({type(error).__name__}: {error})",
                expected="the record as trueup wrote it",
                next_step=f"restore the file, or: trueup {name} RUN.yaml --rebuild",
            ) from None

    def afterwards(self, name: str) -> list[str]:
        """Do what a complete stage does at each call, such as pushing what it made; returns what to say of it."""
        stage = self.stages[name]
        context = Context(run=self.run, run_dir=self.folder, out=self.path(name))
        return stage.afterwards(self.run.section(name), context)

    def since(self, name: str) -> str:
        """What changed outside since a complete stage was built, such as people's verdicts; empty when nothing did."""
        return Standing(self).since(self.stages[name])

    def verdict_lines(self, states: list[State] | None = None) -> list[str]:
        """The verdict and the goal against it; nothing while there is no evaluation of this run."""
        complete = {state.stage for state in states or self.states() if state.state == "complete"}
        found = [stage for stage in self.order() if stage.makes is Report and stage.name in complete]
        return [line for stage in found for line in self.says(stage.name)]

    def preflight(self) -> Iterator[tuple[str, Metrics | PreflightError | StageError]]:
        """Of each stage that trains or samples: what its preflight found, why it would stop, or what it waits for.

        And of those that can foresee what they would be refused for.
        """
        for stage in self.order():
            if not (stage.trains or stage.makes is Completions):
                continue
            try:
                inputs = self.inputs(stage)
                with tempfile.TemporaryDirectory() as scratch:
                    out = Path(scratch) / stage.name
                    out.mkdir()
                    context = Context(run=self.run, run_dir=self.folder, out=out, only_preflight=True)
                    stage.run(self.run.section(stage.name), context, **inputs)
            except Checked as checked:
                yield stage.name, checked.metrics
            except (PreflightError, StageError) as error:
                yield stage.name, error
        for stage in self.order():
            if stage.foresee is not None:
                try:
                    self._foresee(stage)
                    yield stage.name, {"warnings": []}
                except TrueupError as error:
                    found, expected, next_step = error.found, error.expected, error.next_step
                    yield stage.name, PreflightError(error.where, found=found, expected=expected, next_step=next_step)

    def foresee(self, makes: type[Artifact] = Artifact) -> None:
        """Raise what a stage that is not built yet, and `makes` such, would be refused for once the others are."""
        for stage in self.order():
            if not issubclass(stage.makes, makes) or stage.foresee is None:
                continue
            if not stage.makes(self.path(stage.name)).is_there():
                self._foresee(stage)

    def _foresee(self, stage: Stage) -> None:
        if stage.foresee is not None:
            context = Context(run=self.run, run_dir=self.folder, out=self.path(stage.name))
            stage.foresee(self.run.section(stage.name), context)

    def missing_files(self, besides: str = "") -> list[str]:
        """What the stages of this run, `besides` left out, will look for and not find: a line for each file."""
        lost: dict[str, str] = {}
        for stage in self.order():
            reads = (*stage.reads, stage.unless) if stage.unless else stage.reads
            for name in () if stage.name == besides else reads:
                for source in self.run.data.sources(name):
                    paths = source.paths()
                    if not source.on_hub and not (paths and all(path.exists() for path in paths)):
                        lost.setdefault(f"data.{name}: {source.path}", stage.name)
                    if source.scores is not None and not source.scores.exists():
                        lost.setdefault(f"data.{name}: {source.scores}", stage.name)
        return [f"{file}: no such file; {first} reads it" for file, first in lost.items()]

    def missing(self) -> list[str]:
        """`missing_files`, and the base when it is not there."""
        fault = base.fault(self.run.model.base)
        return [*([f"{fault.where}: {fault.found}"] if fault else []), *self.missing_files()]
