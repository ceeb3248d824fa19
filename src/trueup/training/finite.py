"""A loss, a gradient, an evaluation or a reward that is no number stops a run before it reaches the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from trueup.errors import StageError

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SCALE = 1.0  # of fp16's losses: below it, gradients overflow that nobody has scaled up


def not_finite(stage: str, found: str, *, in_fp16: bool) -> StageError:
    """What stops a stage; in fp16 it is most likely the range of its numbers, and another dtype is the cure."""
    if in_fp16:
        return StageError(
            stage,
            found=f"{found}, computed in fp16",
            expected="a finite number: fp16 has none beyond 65,504, and some models need larger ones",
            next_step="set model.dtype: float32 in the run file, and run the same command again",
        )
    return StageError(
        stage,
        found=found,
        expected="a finite number; the last good checkpoint is kept",
        next_step="correct the reward or the data and run the same command again; to change settings, "
        f"remove {stage}.partial",
    )


def refuse_not_finite(stage: str, what: str, value: Tensor, *, in_fp16: bool = False) -> None:
    """Raise StageError when the tensor `value` is NaN or infinite somewhere. The host waits for it."""
    if not value.isfinite().all():
        raise not_finite(stage, f"{what} is {value.sum().item()}", in_fp16=in_fp16)


class Finite(TrainerCallback):  # type: ignore[misc]
    """Stops a trainer of transformers at a loss, a held-out loss or a gradient that is not finite.

    In fp16 the gradient's scaler leaves out a step whose gradient overflows, and halves its scale, as it should some
    times at first: there the stage stops once the scale is below 1, or when no step at all was taken. The scale is all
    that tells: a fused optimizer is called for such a step too, and leaves it out itself.
    """

    def __init__(self, stage: str, accelerator: Any) -> None:
        self.stage, self.accelerator = stage, accelerator
        self.num_steps = self.num_left_out = 0
        self.scale = math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.accelerator.scaler is not None:  # in fp16; DeepSpeed has a scaler of its own
            self.scale = self.accelerator.scaler.get_scale()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not args.fp16:
            gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)  # one number for all of them: the host waits once
            refuse_not_finite(self.stage, f"the gradient at step {state.global_step + 1}", norm)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.num_steps += 1
        if self.accelerator.scaler is not None:
            before, self.scale = self.scale, self.accelerator.scaler.get_scale()  # the host waits, once
            self.num_left_out += self.scale < before
            if self.scale < SMALLEST_SCALE:
                found = f"the gradient overflows at step {state.global_step}, however small the loss is scaled"
                raise not_finite(self.stage, found, in_fp16=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._refuse((logs or {}).get("loss"), f"the loss at step {state.global_step}", args)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self._refuse((metrics or {}).get("eval_loss"), f"the held-out loss after step {state.global_step}", args)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.num_steps and self.num_left_out == self.num_steps:
            raise not_finite(self.stage, f"the gradient overflowed at each of {self.num_steps} steps", in_fp16=True)

    def _refuse(self, value: float | None, what: str, args: Any) -> None:
        if value is not None and not math.isfinite(value):
            raise not_finite(self.stage, f"{what} is {value}", in_fp16=args.fp16)
