"""metrics.jsonl of a stage that trains by a TRL trainer: a row for each step, with what the trainer logged of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trueup.run.files import write_jsonl

OF_THE_WHOLE = ("train_", "total_")  # how the names begin of what a trainer logs once, at the end
OF_A_PASS = ("_runtime", "_per_second")  # how the names end of what it logs of an evaluation's speed


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Writes the trainer's whole log at each checkpoint and at the end: a resumed run's log holds its earlier steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write_jsonl(self.path, rows(state.log_history))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write_jsonl(self.path, rows(state.log_history))


def rows(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each step of a trainer's `log_history`: {step, epoch, loss, ...}, an evaluation with its step."""
    found: dict[int, dict[str, Any]] = {}
    for log in history:
        kept = {k: v for k, v in log.items() if not k.startswith(OF_THE_WHOLE) and not k.endswith(OF_A_PASS)}
        found.setdefault(log["step"], {"step": log["step"]}).update(kept)
    # a resumed trainer's earlier logs come from its checkpoint, whose keys are sorted
    whole = [{"step": step} | dict(sorted(row.items())) for step, row in sorted(found.items())]
    return [row for row in whole if len(row) > 2]  # the last log has epoch and step alone
