"""The chain of stages of one run: which there are, what each needs, and where everything is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trueup.errors import StageError
from trueup.run.artifacts import Artifact
from trueup.run.run_file import RunFile
from trueup.run.stage import Stage


class Chain:
    """A run file, its stages and its folder."""

    def __init__(self, run: RunFile, stages: tuple[Stage, ...], folder: Path) -> None:
        self.run, self.stages, self.folder = run, {stage.name: stage for stage in stages}, folder

    @property
    def run_file_dir(self) -> Path:
        """The folder that holds the run file and runs/."""
        return self.folder.parents[1]

    def path(self, name: str, number: int | None = None) -> Path:
        """A stage's folder: of the run, or of round `number`, or of the run file's round."""
        if self.stages[name].per_run:
            return self.folder / name
        return self.folder / f"round-{number or self.run.round}" / name

    def order(self) -> list[Stage]:
        """The stages `trueup run` executes: of the alignment stages, the chosen one; none whose work nothing needs."""
        chosen = [s for s in self.stages.values() if not s.alignment or s.name == self.run.method]
        inner = {source for s in chosen for source in s.needs.values()}
        while True:
            wanted = {source for s in chosen for source in self.needs(s).values()}
            kept = [s for s in chosen if s.name in wanted or s.name not in inner]
            if len(kept) == len(chosen):
                return kept
            chosen = kept  # what was wanted by a stage that is left out may be wanted by nobody

    def needs(self, stage: Stage) -> Mapping[str, str]:
        """What the stage needs under this run file: less what a data file replaces, or its config does without."""
        if stage.unless and getattr(self.run.data, stage.unless):
            return {}
        unused = stage.unused(self.run.section(stage.name), self.run)
        return {parameter: source for parameter, source in stage.needs.items() if parameter not in unused}

    def where(self, source: str) -> tuple[str, int]:
        """(stage, round) that a source names: "policy" is what this round starts from, "aligned" what it ends with."""
        number = self.run.round
        if source == "policy":
            if number > 1:
                return self._winner(number - 1), number - 1
            return next(s.name for s in self.stages.values() if s.per_run), number
        return (self.run.method if source == "aligned" else source), number

    def _winner(self, number: int) -> str:
        """The alignment stage that made the winner of a round: the run file's method, or the only other one built."""
        aligned = [s.name for s in self.stages.values() if s.alignment]
        built = [name for name in aligned if (self.path(name, number) / "record.json").exists()]
        return built[0] if len(built) == 1 else self.run.method

    def find(self, source: str) -> Artifact | None:
        """What a source names, when it is there."""
        name, number = self.where(source)
        artifact = self.stages[name].makes(self.path(name, number))
        return artifact if artifact.is_there() else None

    def artifact(self, source: str, wanted_by: str) -> Artifact:
        """What a source names. Raises StageError, with the command that makes it, when it is not there."""
        artifact = self.find(source)
        if artifact is None:
            name, number = self.where(source)
            raise StageError(
                wanted_by,
                found=f"{name} is not complete",
                expected=str(self.path(name, number)),
                next_step=self.command(name, number),
            )
        return artifact

    def command(self, name: str, number: int, options: str = "") -> str:
        """What to type for a stage of a round; RUN.yaml is replaced by the run file's name and its overrides."""
        other_round = number != self.run.round and not self.stages[name].per_run
        return f"trueup {name} RUN.yaml" + (f" --set round={number}" if other_round else "") + options
