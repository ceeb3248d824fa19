"""Settings for a new run file: by the size of the base, and changed until each stage is predicted to fit the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trueup.planning import fit, table
from trueup.planning.devices import Device
from trueup.planning.lengths import Lengths
from trueup.planning.shapes import Shape
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Stage

SMALL, MEDIUM, LARGE = 0.3e9, 1e9, 3e9  # parameters: below SMALL the defaults hold, which were chosen for 135M
LENGTH = 1024  # tokens of a text, where answers are longer than the defaults allow for


@dataclass(frozen=True)
class Start:
    """The keys that differ from the defaults, by section; the largest peak in bytes; the stages that nothing makes
    fit."""

    sections: dict[str, dict[str, Any]]
    peak: int
    too_large: list[str]


def start(pipeline: Pipeline, shape: Shape, device: Device) -> Start:
    """What the stages of a run should be set to, before there are any files. Loads no weights."""
    run, peak, too_large = pipeline.run, 0, []
    setup = table.setup_of(pipeline, shape, device)
    sections: dict[str, dict[str, Any]] = {}
    parameters = shape.linear_parameters + shape.other_parameters
    for stage in pipeline.order():
        changes = _of_size(stage, parameters)
        run = fit.changed(run, stage.name, changes)
        terms = fit.peak_of(stage, run, Lengths(), shape, setup)
        if terms is not None and terms["peak"] > table.usable(device):
            cure = fit.cure(stage, run, Lengths(), shape, setup, table.usable(device))
            if cure is None:
                too_large.append(stage.name)
            else:
                changes |= cure
                run = fit.changed(run, stage.name, cure)
                terms = fit.peak_of(stage, run, Lengths(), shape, setup)
        peak = max(peak, terms["peak"] if terms else 0)
        if changes:
            sections[stage.name] = changes
    return Start(sections, peak, too_large)


def _of_size(stage: Stage, parameters: int) -> dict[str, Any]:
    """The larger a base, the smaller its steps, and the longer the answers it is worth waiting for: as in configs/."""
    if parameters < SMALL:
        return {}
    large = parameters > LARGE
    answer = 256 if parameters < MEDIUM else 512  # tokens
    wanted: dict[str, Any] = {"max_length": LENGTH, "max_new_tokens": answer, "max_completion_length": answer}
    if stage.alignment:
        wanted["learning_rate"] = 5e-6 if large else 1e-5
    elif stage.trains and not stage.needs:
        wanted |= {"learning_rate": 2e-4, "num_train_epochs": 2 if large else 3, "gradient_accumulation_steps": 2}
    return {key: value for key, value in wanted.items() if key in stage.config.model_fields}
