"""What chooses the best of several answers: the reward of the run's method, looked at before anything is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import ModelError, StageError, visible
from trueup.online.settings import RewardSettings, by_functions, combination, files_of_functions
from trueup.run.artifacts import RewardModel, everything
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.run.standing import Standing
from trueup.talk.usable import fault


@dataclass(frozen=True)
class Chooser:
    """The reward model in the folder `path`; without one, the functions of the run's method.

    `name` is what records and people are told, and `fingerprint` that of the files that it is made of.
    """

    name: str
    path: Path | None
    fingerprint: str
    stale: str = ""  # what changed since the reward model was trained
    says: tuple[str, ...] = ()  # how good it is, as its stage says


def find(pipeline: Pipeline, standing: Standing) -> Chooser:
    """What the run's method optimizes, as `sample` and `evaluate` choose by it; no function is imported yet.

    Raises StageError where no reward model is trained yet in the run file's round, ModelError where it cannot be used,
    and ConfigError where it cannot be combined as asked.
    """
    run = pipeline.run
    if by_functions(run):
        return _functions(pipeline, standing)
    name, reward = f"round-{run.round}/reward", RewardModel(pipeline.path("reward"))
    if not reward.is_there():
        raise _missing(pipeline, name)
    if (why := fault(pipeline, standing, reward)) is not None:
        raise ModelError(
            name,
            found=f"it cannot choose the best of several answers: {why}",
            expected="the reward model as it was trained, on the base that the run file names",
            next_step="trueup reward RUN.yaml --rebuild",
        )
    combination(run).refuse_one(reward.path)
    record = reward.record()
    if (members := record.get("config", {}).get("members", 1)) > 1:
        name += f" ({combination(run).rule.replace('_', ' ')} of {members} members)"
    stale = visible("; ".join(standing.own_faults("reward", run.round)))
    says = tuple(pipeline.says("reward"))
    return Chooser(name, reward.path, str(record.get("fingerprint", "")), stale, says)


def context(pipeline: Pipeline) -> Context:
    """The run, as functions that reward are looked for in it."""
    return Context(run=pipeline.run, run_dir=pipeline.folder, out=pipeline.folder)


def need(pipeline: Pipeline, chooser: Chooser) -> None:
    """Import the functions that choose, where functions do. Raises ConfigError where one cannot be imported."""
    if chooser.path is None:
        from trueup.judges import optimized

        optimized.functions(context(pipeline))


def _functions(pipeline: Pipeline, standing: Standing) -> Chooser:
    method = pipeline.run.section(pipeline.run.method)
    assert isinstance(method, RewardSettings)  # noqa: S101 - `by_functions` said so
    weights = method.reward_functions
    named = ", ".join(f"{name} x {weight:g}" if len(weights) > 1 else name for name, weight in weights.items())
    files = files_of_functions(method, pipeline.run_file_dir)
    digest = hashlib.sha256("".join(f"{name}\0{standing.hashes.of(file)}\n" for name, file in files.items()).encode())
    return Chooser(f"the reward function{'s' * (len(weights) > 1)} {named}", None, digest.hexdigest())


def _missing(pipeline: Pipeline, name: str) -> StageError:
    """No reward model in this round; an earlier one has one, perhaps."""
    folders = [one.path for one in everything(pipeline.folder) if one.path.name == "reward"]
    numbers = [
        number for path in folders if (number := int(path.parent.name.removeprefix("round-"))) < pipeline.run.round
    ]
    next_step = pipeline.command("reward", pipeline.run.round)
    if numbers:
        next_step += f"; or add --set round={numbers[-1]}, whose reward model is there"
    return StageError(
        "best-of-n",
        found=f"there is no {name} yet to choose the best answer by",
        expected=str(pipeline.path("reward")),
        next_step=next_step,
    )
