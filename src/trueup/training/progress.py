"""The trainers' progress: steps, the last loss and evaluations, instead of bars and printed dictionaries."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from trueup.progress import bars


class Bar(TrainerCallback):  # type: ignore[misc]
    """Shows steps and the last loss, and how far an evaluation is."""

    def __init__(self, title: str) -> None:
        self.bar = bars(title)
        self.evaluating: Any = None  # the task of an evaluation

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.start()
        total = max(state.max_steps, state.global_step)  # where nothing was left to train, max_steps is 0
        self.task = self.bar.add_task("steps", total=total, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "loss" in logs:
            self.bar.update(self.task, description=f"steps, loss {float(logs['loss']):.3f}")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.evaluating is None:
            self.evaluating = self.bar.add_task("held-out loss", total=len(kwargs["eval_dataloader"]))
        self.bar.advance(self.evaluating)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.evaluating is not None:
            self.bar.remove_task(self.evaluating)
            self.evaluating = None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.stop()


def install(trainer: Any, title: str) -> None:
    """Replace the trainer's own bar and printer."""
    for usual in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(usual)
    trainer.add_callback(Bar(title))
