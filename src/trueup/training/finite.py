"""A loss, a gradient or a reward that is no number stops a run before it reaches the weights."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from trueup.errors import StageError


def refuse_not_finite(stage: str, what: str, value: Any) -> None:
    """Raise StageError when the tensor `value` is NaN or infinite somewhere."""
    if not value.isfinite().all():
        raise StageError(
            stage,
            found=f"{what} is {value.sum().item()}",
            expected="a finite number; the last good checkpoint is kept",
            next_step="correct the reward or the data and run the same command again; to change settings, "
            f"remove {stage}.partial",
        )


class Finite(TrainerCallback):  # type: ignore[misc]
    """Stops a TRL trainer before a step whose gradient is not finite; fp16's gradient scaler skips those itself."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not args.fp16:
            for parameter in kwargs["model"].parameters():
                if parameter.grad is not None:
                    refuse_not_finite(self.stage, f"a gradient at step {state.global_step + 1}", parameter.grad)
