"""What is no number stops a trainer, in one message; the steps that fp16's scaler leaves out are counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainingArguments

from trueup.errors import StageError
from trueup.training import finite

FP16, FP32 = SimpleNamespace(fp16=True), SimpleNamespace(fp16=False)


def callback(*scales: float) -> finite.Finite:
    """One whose scaler says `scales` one after the other, the first of them before the first step."""
    left = list(scales)
    return finite.Finite("sft", SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: left.pop(0))))


def at(step: int) -> Any:
    return SimpleNamespace(global_step=step)


@pytest.mark.parametrize(
    ("args", "cure"), [(FP16, "set model.dtype: float32"), (FP32, "correct the reward or the data")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_stage(args: Any, cure: str, value: float) -> None:
    with pytest.raises(StageError, match=rf"sft: the loss at step 3 is {value}") as caught:
        callback().on_log(args, at(3), None, logs={"loss": value})
    assert cure in str(caught.value)
    with pytest.raises(StageError, match="the held-out loss after step 3"):
        callback().on_evaluate(args, at(3), None, metrics={"eval_loss": value})


def test_other_logs_do_not(args: Any = FP16) -> None:
    callback().on_log(args, at(3), None, logs={"loss": 0.5, "learning_rate": 0.1})
    callback().on_log(args, at(3), None, logs={"train_runtime": 1.0})
    callback().on_evaluate(args, at(3), None, metrics={"eval_loss": 0.5})


def steps(watch: finite.Finite, number: int) -> None:
    watch.on_train_begin(FP16, at(0), None)
    for step in range(1, number + 1):
        watch.on_step_end(FP16, at(step), None)


def test_the_scale_may_fall_but_not_below_1() -> None:
    """It is 65,536 at first; each halving leaves out a step."""
    falling = [2.0**exponent for exponent in range(16, -2, -1)]
    steps(callback(*falling[:-1]), 16)
    with pytest.raises(StageError, match="the gradient overflows at step 17, however small the loss is scaled"):
        steps(callback(*falling), 17)


def test_a_stage_that_took_no_step_does_not_end_well() -> None:
    watch = callback(32.0, 16.0, 8.0, 4.0)
    steps(watch, 3)
    with pytest.raises(StageError, match="the gradient overflowed at each of 3 steps, computed in fp16"):
        watch.on_train_end(FP16, at(3), None)
    watch = callback(32.0, 16.0, 16.0, 32.0, 16.0)
    steps(watch, 4)
    watch.on_train_end(FP16, at(4), None)
    assert (watch.num_left_out, watch.num_steps) == (2, 4)


class Numbers(TorchDispatchMode):
    """Counts what makes a host wait for a GPU: a value taken off a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.taken += func._schema.name == "aten::_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def test_gradients_are_looked_at_together() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(50)))
    model(torch.ones(1, 4)).sum().backward()
    with Numbers() as numbers:
        callback().on_pre_optimizer_step(FP32, at(0), None, model=model)
    assert numbers.taken == 1
    model[37].bias.grad[2] = float("nan")
    with pytest.raises(StageError, match="the gradient at step 1 is nan"):
        callback().on_pre_optimizer_step(FP32, at(0), None, model=model)


def test_transformers_trainer_calls_it(tmp_path: Path) -> None:
    """A loss that becomes infinite at the third step, in fp32: nothing but the log shows it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.calls = nn.Parameter(torch.ones(1)), 0

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            self.calls += 1
            return {"loss": self.weight.sum() + (float("inf") if self.calls == 3 else 0.0)}

    args = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        logging_nan_inf_filter=False,
        per_device_train_batch_size=1,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 5
    trainer = Trainer(model=Model(), args=args, train_dataset=rows)
    trainer.add_callback(finite.Finite("sft", trainer.accelerator))
    with pytest.raises(StageError, match="the loss at step 3 is inf"):
        trainer.train()
