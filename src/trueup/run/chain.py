"""The chain of stages of one run: which there are, what each needs, and where everything is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trueup.errors import StageError
from trueup.run import naming
from trueup.run.artifacts import Artifact
from trueup.run.candidates import Candidate, best, candidates
from trueup.run.run_file import RunFile
from trueup.run.stage import Stage

EARLIER_REWARD = "earlier reward"  # in the `needs` of other stages, the reward model of the round before
ALIGNED = "aligned"  # the name of what the run file's method makes, in the `needs` of other stages


class Chain:
    """A run file, its stages and its folder."""

    def __init__(self, run: RunFile, stages: tuple[Stage, ...], folder: Path) -> None:
        self.run, self.stages, self.folder = run, {stage.name: stage for stage in stages}, folder

    @property
    def run_file_dir(self) -> Path:
        """The folder that holds the run file and runs/."""
        return self.folder.parents[1]

    def stage(self, name: str) -> Stage:
        """The stage of this name, or whose variant bears it: `dpo` of `dpo@beta-0.3`."""
        return self.stages[naming.stage_of(name)]

    def path(self, name: str, number: int | None = None) -> Path:
        """A stage's folder: of the run, or of round `number`, or of the run file's round; there, of its variant."""
        stage, (_, variant) = self.stage(name), naming.split(name)
        if stage.per_run:
            return self.folder / stage.name
        number = number or self.run.round
        if not variant and number == self.run.round and self.varies(stage):
            variant = self.run.variant
        return self.folder / f"round-{number}" / naming.folder_of(stage.name, variant)

    def varies(self, stage: Stage) -> bool:
        """Whether each variant has a stage of its own: it aligns, or is made from what does."""
        sources = stage.needs.values()
        return (
            stage.alignment
            or ALIGNED in sources
            or any(self.varies(self.stages[s]) for s in sources if s in self.stages)
        )

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
        """What the stage needs under this run file: less what a data file replaces, or its config does without.

        Of `Stage.all_rounds` also what the earlier rounds made, the first of them first: `feedback_of_round_1` is
        `collect/1`. Where the stage's config has the key `rounds`, it says whether those are wanted.
        """
        if stage.unless and getattr(self.run.data, stage.unless):
            return {}
        section = self.run.section(stage.name)
        unused = stage.unused(section, self.run)
        found = {parameter: source for parameter, source in stage.needs.items() if parameter not in unused}
        earlier = {
            f"{parameter}_of_round_{number}": f"{found[parameter]}/{number}"
            for parameter in stage.all_rounds
            if parameter in found and getattr(section, "rounds", "all") == "all"
            for number in range(1, self.run.round)
        }
        return found | earlier

    def where(self, source: str) -> tuple[str, int]:
        """(stage, round) that a source names: "policy" is what this round starts from, "aligned" what it ends with.

        "earlier reward" is the reward model of the round before, and "collect/1" that stage of round 1.
        """
        name, _, earlier = source.partition("/")
        if earlier:
            return name, int(earlier)
        number = self.run.round
        if source == EARLIER_REWARD:
            return "reward", number - 1
        if source == "policy":
            if number > 1:
                return self.winner(number - 1), number - 1
            return next(s.name for s in self.stages.values() if s.per_run), number
        return (self.run.method if source == ALIGNED else source), number

    def winner(self, number: int) -> str:
        """The aligned adapter that round `number` + 1 starts from, by the folder's name; see `RunFile.winner`."""
        if number in self.run.winner:
            return self.run.winner[number]
        built = self.aligned(number)
        won = best(built) or (built[0] if len(built) == 1 else None)
        return self.run.method if won is None else won.name

    def find(self, source: str) -> Artifact | None:
        """What a source names, when it is there."""
        name, number = self.where(source)
        artifact = self.stage(name).makes(self.path(name, number))
        return artifact if artifact.is_there() else None

    def inputs(self, stage: Stage) -> dict[str, Artifact]:
        """What `run` of the stage is given; an earlier round may lack its own. Raises StageError as `artifact` does."""
        return {
            parameter: self.artifact(source, stage.name)
            for parameter, source in self.needs(stage).items()
            if parameter in stage.needs or self.find(source) is not None
        }

    def named(self, name: str, number: int) -> str:
        """A stage as messages name it: with its round, where that is another than the run file's."""
        other_round = number != self.run.round and not self.stage(name).per_run
        return f"{name} of round {number}" if other_round else name

    def artifact(self, source: str, wanted_by: str) -> Artifact:
        """What a source names. Raises StageError, with the command that makes it, when it is not there."""
        artifact = self.find(source)
        if artifact is None:
            name, number = self.where(source)
            named = source == "policy" and number in self.run.winner
            command = self.command(name, number)
            raise StageError(
                f"{wanted_by}, winner of round {number}" if named else wanted_by,
                found=f"{name} is not complete",
                expected=f"{self.path(name, number)}{self._others(name, number)}",
                next_step=f"correct winner in the run file, or: {command}" if named else command,
            )
        return artifact

    def command(self, name: str, number: int, options: str = "") -> str:
        """What to type for a stage of a round; RUN.yaml is replaced by the run file's name and its overrides."""
        stage, variant = naming.split(name)
        other_round = number != self.run.round and not self.stages[stage].per_run
        asked = f" --as {variant}" * bool(variant) + f" --set round={number}" * other_round
        return f"trueup {stage} RUN.yaml{asked}{options}"

    def _others(self, name: str, number: int) -> str:
        """What else of the same round is aligned, where `name` is such a stage that is missing."""
        if not self.stage(name).alignment:
            return ""
        built = [one.name for one in self.aligned(number)]
        return f"; round {number} has {', '.join(built)}" if built else ""

    def aligned(self, number: int) -> list[Candidate]:
        """The aligned adapters that round `number` has, each with the figures of its evaluation."""
        return candidates(self.folder, number, [s.name for s in self.stages.values() if s.alignment])

    def unused_winners(self) -> list[str]:
        """A line for each entry of the run file's `winner` that names what is not there."""
        said = []
        for number, name in sorted(self.run.winner.items()):
            built = [one.name for one in self.aligned(number)]
            if not built:
                said.append(f"winner of round {number}: {name}, and nothing of that round is aligned yet")
            elif name not in built:
                said.append(f"winner of round {number}: {name} is not complete; that round has {', '.join(built)}")
        return said
