"""The checkpoints of an aligned adapter along its training, which an evaluation compares it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup import ranks
from trueup.errors import ConfigError, StageError
from trueup.models import adapters
from trueup.run import naming
from trueup.run.artifacts import Adapter
from trueup.run.run_file import RunFile
from trueup.run.section import AlignmentSection
from trueup.run.stage import Context
from trueup.training.checkpoints import is_whole, step_of


def wanted(run: RunFile) -> int:
    """How many checkpoints the run's evaluation compares the aligned model with."""
    return int(getattr(getattr(run, "evaluate", None), "checkpoints", 0))


def refuse_too_few_kept(stage: str, section: AlignmentSection, number: int) -> None:
    """Raise ConfigError where an alignment keeps fewer than `number` checkpoints before that of its last step."""
    kept = section.keep_checkpoints
    if number >= kept:
        raise ConfigError(
            "evaluate.checkpoints",
            found=f"{number}, and {stage}.keep_checkpoints {kept}, of which the last is the aligned model itself",
            expected=f"at most {kept - 1}",
            next_step=f"--set {stage}.keep_checkpoints={number + 1}, or lower evaluate.checkpoints",
        )


def refuse_too_few_steps(stage: str, number: int, num_steps: int, save_steps: int) -> None:
    """Raise ConfigError where fewer than `number` checkpoints are written before that of the last step."""
    before = (num_steps - 1) // save_steps
    if number > before:
        often = (num_steps - 1) // max(number, 1)
        raise ConfigError(
            "evaluate.checkpoints",
            found=f"{number}, and {stage} takes {num_steps:,} steps, with a checkpoint every {save_steps:,}",
            expected=f"at most {before:,}, those before the last step",
            next_step=f"--set {stage}.save_steps={often}, or lower evaluate.checkpoints"
            if often
            else f"lower evaluate.checkpoints to {num_steps - 1}, or take more steps",
        )


def callback(context: Context) -> Any:
    """A transformers callback that refuses as `refuse_too_few_steps`, when the steps are known and before the first."""
    from transformers import TrainerCallback

    class Enough(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            begins = state.global_step == 0  # what goes on was not refused then, and may have no step left to take
            if begins and isinstance(getattr(context.run, context.stage, None), AlignmentSection):
                refuse_too_few_steps(context.stage, wanted(context.run), state.max_steps, args.save_steps)

    return Enough()


def chosen(aligned: Path, number: int) -> dict[str, Path]:
    """`number` checkpoints of the adapter in `aligned` by label (`step_10`), in order of steps; of several ranks, too.

    They are evenly spaced among the whole ones; that of the last step, which holds the aligned adapter itself, is left
    out. Raises StageError where there are fewer.
    """
    return ranks.from_first(lambda: _chosen(aligned, number)) if number else {}


def _chosen(aligned: Path, number: int) -> dict[str, Path]:
    found = sorted((aligned / "checkpoints").glob("checkpoint-*[0-9]"), key=step_of)
    torn = [one for one in found if not is_whole(one)]
    bare = [one for one in found if one not in torn and not (one / "adapter_model.safetensors").is_file()]
    usable = [one for one in found if one not in (*torn, *bare)]
    if usable and _sha256(usable[-1]) == _sha256(aligned):
        usable.pop()
    if len(usable) < number:
        lost = [("torn", torn), ("written by an earlier version, without an adapter", bare)]
        raise _too_few(aligned, number, usable, [f"{_steps(some)} {why}" for why, some in lost if some])
    spread = [usable[(i + 1) * (len(usable) + 1) // (number + 1) - 1] for i in range(number)]
    return {f"step_{step_of(one)}": one for one in spread}


def _too_few(aligned: Path, number: int, usable: list[Path], lost: list[str]) -> StageError:
    stage, _ = naming.split(aligned.name)
    record = Adapter(aligned).record()
    num_steps, every = record.get("metrics", {}).get("num_steps"), record.get("config", {}).get("save_steps")
    often = ""
    if num_steps and every and number > (num_steps - 1) // every:
        often = f" --set {stage}.save_steps={max(1, (num_steps - 1) // number)}"
    again = f"trueup {stage} RUN.yaml --as along --set {stage}.keep_checkpoints={number + 1}{often}"
    fewer = f"trueup evaluate RUN.yaml --set evaluate.checkpoints={len(usable)}, or " if usable else ""
    whole = [f"{_steps(usable)} before its last step" if usable else "no whole one before its last step", *lost]
    return StageError(
        f"{aligned}, evaluate.checkpoints",
        found="; ".join(whole) if (aligned / "checkpoints").is_dir() else "no folder checkpoints",
        expected=f"{number} whole checkpoints, which training leaves with {stage}.keep_checkpoints of {number + 1} or "
        "more; exports and copies may have none",
        next_step=f"{fewer}train a variant that keeps more: {again}",
    )


def _steps(some: list[Path]) -> str:
    return f"checkpoint{'s' * (len(some) > 1)} {', '.join(str(step_of(one)) for one in some)}"


def _sha256(folder: Path) -> str:
    return adapters.tensors_sha256(adapters.saved_tensors(folder))
