"""The shape every stage has: a config class, a run function, and what it needs and makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueup.run import naming
from trueup.run.artifacts import Adapter, Artifact, RewardModel
from trueup.run.run_file import RunFile
from trueup.run.section import AlignmentSection, Section

ACCUMULATION = "gradient_accumulation_steps"
FITS_BY = ("per_device_train_batch_size", ACCUMULATION, "gradient_checkpointing")  # `fits_by` of most TRL trainers
Metrics = dict[str, Any]  # JSON values only; the record keeps them


class Waiting(Exception):
    """People have labelled `labelled` of `wanted` completions; the same command goes on later.

    `notes` are lines on what does not count and why.
    """

    exit_code = 3  # nothing is wrong

    def __init__(self, labelled: int, wanted: int, address: str, notes: Sequence[str] = ()) -> None:
        self.labelled, self.wanted, self.address = labelled, wanted, address
        first = f"waiting {labelled}/{wanted}; label at {address}, then run the same command again"
        super().__init__("\n  ".join([first, *notes]))


class Checked(Exception):
    """`trueup preflight` looked at what this stage would train on, and the stage ends before it trains."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        super().__init__("checked")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage knows of the run it is in."""

    run: RunFile
    run_dir: Path  # runs/<name>
    out: Path  # <stage>.partial: kept between calls until the stage is complete
    only_preflight: bool = False  # look at the tokens, on a stand-in for the base, and end by Checked
    out_of_first: Path | None = None  # on a rank other than the first, whose `out` is thrown away: that of the first
    part: str = ""  # ends the names of what a stage that trains several adapters keeps of a further one: "-2"

    @property
    def run_file_dir(self) -> Path:
        """The folder that holds the run file and runs/."""
        return self.run_dir.parents[1]

    @property
    def stage(self) -> str:
        """The name of the stage that is being built, by its folder."""
        return naming.stage_of(self.out.name)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, which all ranks of a stage share."""
        return (self.out_of_first or self.out) / f"checkpoints{self.part}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run. `needs` maps a parameter of `run` to the stage that makes it.

    Three names are aliases: "aligned" for the alignment stage the run file chose; "policy" for what the round starts
    from, which is sft in round 1 and the winner of the round before in later ones; "earlier reward" for the reward
    model of the round before.
    """

    name: str
    config: type[Section]
    makes: type[Artifact]
    run: Callable[..., Metrics]
    help: str  # one sentence, for `trueup --help`
    needs: Mapping[str, str] = field(default_factory=dict)
    unused: Callable[[Any, RunFile], tuple[str, ...]] = lambda config, run: ()  # of `needs`: what it does without
    unless: str = ""  # a field of the `data` section that, when set, replaces `needs`
    all_rounds: tuple[str, ...] = ()  # of `needs`: `run` takes those of the earlier rounds, too; see `Chain.needs`
    reads: tuple[str, ...] = ()  # files of the `data` section this stage depends on
    batch: str = ""  # the key of its section that says how many rows are in memory at once
    smallest_batch: Callable[[dict[str, Any]], int] = lambda values: 1  # of the section's values: `batch` at its least
    length: str = ""  # the key that says how long a text may be, in tokens
    fits_by: tuple[str, ...] = ()  # keys that say how a step fits into memory, not what it computes; see `same_steps`
    plan: Callable[..., Any] | None = None  # (values, lengths, run file) -> trueup.planning.loads.Planned
    cure: Mapping[str, Any] = field(default_factory=dict)  # the only change that makes it fit into less memory
    two_steps: Mapping[str, Any] = field(default_factory=dict)  # changes that leave two optimizer steps, to be measured
    code: Callable[[Any, Path], Mapping[str, Path]] = lambda config, folder: {}  # other files it depends on, by name
    per_run: bool = False  # its folder is the run's, not a round's
    alone: bool = False  # one process builds it, whatever number was launched; the other ranks wait
    on_base: bool = True  # it loads the base; false where only texts are read
    says: Callable[[Metrics, RunFile], list[str]] = lambda metrics, run: []  # the figures that matter, and what is off
    how_far: Callable[[Path], str] = lambda run_dir: ""  # of a half-built stage, beyond "partial"
    judged: Callable[[Path, Path], int] = lambda run_dir, folder: 0  # judgements that building it again would set aside
    foresee: Callable[[Any, Context], Any] | None = None  # raises what it would be refused for, before anything trains
    flags: tuple[str, ...] = ()  # keys of its section that are options of its command as well
    shorthands: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # option -> (override, what it says of it)
    refreshed_by: tuple[str, ...] = ()  # of `flags`: those with which its command builds again what is complete
    apart: tuple[str, ...] = ()  # keys of its section that change nothing of what it makes
    late: tuple[
        str, ...
    ] = ()  # keys, and beginnings of names in `code`, on which nothing half-built depends: see `Kept`
    afterwards: Callable[[Any, Context], list[str]] = lambda config, context: []  # at each call, once it is complete
    since: Callable[..., str] | None = (
        None  # (config, context, artifact, inputs) -> what is no longer up to date, in words
    )

    def same_steps(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
        """Of `fits_by`, the keys by which two sections may differ while a half-built stage goes on.

        Where gradients accumulate, as many rows make a step in both: they differ by rounding alone.
        """
        keys = set(self.fits_by)
        if ACCUMULATION in keys:
            rows_then, rows_now = (values.get(self.batch, 0) * values.get(ACCUMULATION, 0) for values in (then, now))
            if rows_then != rows_now:
                keys -= {self.batch, ACCUMULATION}
        return keys

    @property
    def alignment(self) -> bool:
        """Whether it makes a candidate for the winner of a round; the run file's `method` chooses one of these."""
        return issubclass(self.config, AlignmentSection)

    @property
    def trains(self) -> bool:
        """Whether it trains an adapter, and `trueup preflight` has tokens to look at."""
        return issubclass(self.makes, Adapter | RewardModel)
