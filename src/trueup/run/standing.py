"""Where each stage of a run stands: complete, stale and why, broken, running, half-built, missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import StageError
from trueup.run import lock
from trueup.run.artifacts import Artifact
from trueup.run.chain import Chain
from trueup.run.changes import MadeAgain, changes
from trueup.run.hashes import Hashes
from trueup.run.identity import MadeOf, made_of
from trueup.run.record import read_record
from trueup.run.stage import Context, Stage

At = tuple[str, int]  # a stage of a round
Faults = dict[At, list[str]]  # what is not as it was when it was built, or no longer as it was built


@dataclass(frozen=True)
class State:
    """Where a stage stands: complete | stale | broken | running | partial | missing, and why."""

    stage: str
    state: str
    why: str = ""
    remembered: tuple[str, ...] = ()  # overrides it was built with, without which it is stale


class Standing:
    """A look at a run; each file is hashed once."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.hashes = Hashes(chain.folder / ".hashes.json")
        self.known: dict[At, Faults] = {}

    def made_of(self, stage: Stage, inputs: Mapping[str, Artifact]) -> MadeOf:
        """What a stage would be made of now."""
        return made_of(self.chain.run, stage, inputs, self.chain.run_file_dir, self.hashes)

    def differences(
        self, stage: Stage, then: MadeOf, now: MadeOf, *, strict: bool = False, begun: bool = False
    ) -> list[str]:
        """What changed between a record and now, in words; see `changes`."""
        folder = self.chain.run_file_dir
        made_again = self._made_again(stage)
        return changes(then, now, self.chain.run, stage, folder, made_again, strict=strict, begun=begun)

    def stale_inputs(self, stage: Stage) -> Faults:
        """The stages before `stage` that are not as they should be, the earliest first."""
        found: Faults = {}
        for source in self.chain.needs(stage).values():
            if self.chain.find(source) is not None:
                found |= self.faults(*self.chain.where(source))
        return found

    def faults(self, name: str, number: int) -> Faults:
        """A stage that is there, and the stages before it, where they are not as they should be.

        Of an earlier round the artifact alone is looked at: the run file's sections are this round's.
        """
        at = (name, 0 if self.chain.stage(name).per_run else number)
        if at not in self.known:
            stage = self.chain.stage(name)
            own = self.own_faults(name, number)
            this_round = stage.per_run or number == self.chain.run.round
            before = self.stale_inputs(stage) if this_round else {}
            self.known[at] = before | ({(name, number): own} if own else {})
        return self.known[at]

    def own_faults(self, name: str, number: int) -> list[str]:
        """What is wrong with one stage that is there: its files, its record, or what it is made of."""
        stage = self.chain.stage(name)
        artifact = stage.makes(self.chain.path(name, number))
        try:
            altered = artifact.altered(self.hashes.of)
            if altered or not (stage.per_run or number == self.chain.run.round):
                return altered
            record = artifact.record()
            there = {k: self.chain.find(source) for k, source in self.chain.needs(stage).items()}
            inputs = {k: a for k, a in there.items() if a is not None and self._made(a) is not None}
            found = self.differences(stage, record, self.made_of(stage, inputs))
            lost = {k: then for k, then in record.get("inputs", {}).items() if there.get(k, artifact) is None}
            return found + [self._made_again(stage)(parameter, then, "") for parameter, then in lost.items()]
        except StageError as error:
            return [f"{error.where}: {error.found}"]

    def remembered(self, name: str, found: list[str]) -> tuple[str, ...]:
        """The overrides that a stage was built with and whose absence is among what was found."""
        record = read_record(self.chain.path(name) / "record.json") or {}
        return tuple(
            override
            for override in record.get("overrides", ())
            if any(change.startswith(f"{override.partition('=')[0]} ") for change in found)
        )

    def states(self) -> list[State]:
        """One state for each stage of this run, in order."""
        writer = lock.running(self.chain.folder)
        found = [self._state(stage, writer) for stage in self.chain.order()]
        self.hashes.save()
        return found

    def _state(self, stage: Stage, writer: lock.Writer | None) -> State:
        name, final = stage.name, self.chain.path(stage.name)
        if writer is not None and writer.stage == name:
            return State(name, "running", writer.words)
        if not stage.makes(final).is_there():
            how_far = self._how_far(stage, final.with_name(f"{final.name}.partial"))
            return State(name, "partial", how_far) if how_far else State(name, "missing")
        if read_record(final / "record.json") is None:
            return State(name, "broken", "record.json is empty or torn; --rebuild keeps the old folder aside")
        own = self.own_faults(name, self.chain.run.round)
        before = self.stale_inputs(stage)
        if not own and not before:
            return State(name, "complete", self.since(stage))
        why = [*own, *([f"built on a stale {', '.join(self.chain.named(*at) for at in before)}"] if before else [])]
        return State(name, "stale", "; ".join(why), self.remembered(name, own))

    def since(self, stage: Stage) -> str:
        """What changed outside since a complete stage was built, such as people's verdicts; empty when nothing did."""
        inputs = {k: self.chain.find(source) for k, source in self.chain.needs(stage).items()}
        if stage.since is None or None in inputs.values():
            return ""
        made = stage.makes(self.chain.path(stage.name))
        context = Context(run=self.chain.run, run_dir=self.chain.folder, out=made.path)
        return stage.since(self.chain.run.section(stage.name), context, made, **inputs)

    def _how_far(self, stage: Stage, out: Path) -> str:
        """How far a half-built stage came; empty when it has made nothing yet."""
        if not out.exists():
            return ""
        return stage.how_far(self.chain.folder) or ("the same command goes on" if begun(out) else "")

    def _made_again(self, stage: Stage) -> MadeAgain:
        def words(parameter: str, then: str, now: str) -> str:
            name, number = self.chain.where(self.chain.needs(stage)[parameter])
            other = next(
                (s.name for s in self.chain.stages.values() if s.alignment and self._made(self._of(s)) == then), None
            )
            if other is not None and other != name:
                return f"it was made from {other}, and the run file's method is {name}"
            if not now:
                return f"{self.chain.named(name, number)}, which it should be made from, is missing"
            said = self.chain.stage(name).makes.MADE_AGAIN.format(stage=name)
            return said if self.chain.named(name, number) == name else f"round {number}: {said}"

        return words

    def _of(self, stage: Stage) -> Artifact:
        return stage.makes(self.chain.path(stage.name))

    def _made(self, artifact: Artifact) -> object:
        return (read_record(artifact.path / "record.json") or {}).get("fingerprint")


def begun(out: Path) -> bool:
    """True when a half-built stage has made a file of its own."""
    return any(path.is_file() and path.name != "plan.json" for path in out.rglob("*"))
