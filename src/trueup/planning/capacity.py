"""The largest bases that a device can train, by stage: what `trueup doctor` says of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trueup.planning import shapes, starting
from trueup.planning.devices import Device
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import model
from trueup.run.stage import Stage

# of the table of shapes, smallest first: one of each size that people choose
BASES = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-3B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct",
    "Qwen/Qwen2.5-32B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
)


def largest(device: Device, stages: Sequence[Stage], method: str) -> dict[str, str | None]:
    """{stage: the largest of BASES with which it is predicted to fit} of a run's training stages.

    With the settings that `trueup init` would write for that base and this device; None where none fits.
    """
    found: dict[str, str | None] = {}
    sections = {stage.name: stage.config for stage in stages}
    for base in BASES:
        run = model(sections).model_validate({"name": "new", "method": method, "model": {"base": base}})
        pipeline = Pipeline(run, tuple(stages), Path())
        too_large = starting.start(pipeline, shapes.of_table(base), device).too_large
        for stage in pipeline.order():
            if stage.trains:
                found.setdefault(stage.name, None)
                if stage.name not in too_large:
                    found[stage.name] = base
    return found
