"""Does a stage fit, and if not, which change would make it."""

from __future__ import annotations

from typing import Any

from trueup.planning.lengths import Lengths
from trueup.planning.loads import plan
from trueup.planning.memory import Setup, peak
from trueup.planning.shapes import Shape
from trueup.run.run_file import RunFile
from trueup.run.stage import Stage

SMALLEST_LENGTH = 64  # tokens
Changes = dict[str, Any]


def peak_of(stage: Stage, run: RunFile, lengths: Lengths, shape: Shape, setup: Setup) -> dict[str, int] | None:
    """The memory terms of a stage; None where it loads no model."""
    planned = plan(stage, run, lengths)
    return None if planned is None else peak(shape, setup, planned[0])


def cure(stage: Stage, run: RunFile, lengths: Lengths, shape: Shape, setup: Setup, usable_bytes: int) -> Changes | None:
    """The smallest change of the section under which the stage fits in `usable_bytes`; None when there is none.

    First smaller micro-batches, which change no result where gradients accumulate; then checkpointing, which costs a
    forward pass; then shorter texts, which cut data.
    """
    if stage.cure:
        return dict(stage.cure)
    values = run.section(stage.name).model_dump()
    smallest_batch = stage.smallest_batch(values)
    for length in _halves(values, stage.length, SMALLEST_LENGTH):
        for checkpointing in _checkpointing(values):
            for batch in _halves(values, stage.batch, smallest_batch):
                changes = {**length, **checkpointing, **batch}
                terms = peak_of(stage, changed(run, stage.name, changes), lengths, shape, setup)
                if terms is not None and terms["peak"] <= usable_bytes:
                    return {**changes, **_accumulation(values, batch)}
    return None


def changed(run: RunFile, name: str, changes: Changes) -> RunFile:
    """`run` with another section."""
    section = run.section(name)
    valid = type(section).model_validate(changes)  # "adapter" becomes the tuple that `export.to` holds
    return run.model_copy(update={name: section.model_copy(update={key: getattr(valid, key) for key in changes})})


def _halves(values: Changes, key: str, smallest: int) -> list[Changes]:
    found: list[Changes] = [{}]
    value = values[key] if key else 0
    while key and value // 2 >= smallest:
        value //= 2
        found.append({key: value})
    return found


def _checkpointing(values: Changes) -> list[Changes]:
    return [{}, {"gradient_checkpointing": True}] if values.get("gradient_checkpointing") is False else [{}]


def _accumulation(values: Changes, batch: Changes) -> Changes:
    """As many more micro-batches per step as each is smaller."""
    if "gradient_accumulation_steps" not in values or not batch:
        return {}
    ((key, size),) = batch.items()
    return {"gradient_accumulation_steps": values["gradient_accumulation_steps"] * values[key] // size}
