"""A stage that ran out of memory ends in what would fit instead, and whether it goes on with that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trueup.cli.completion import as_yaml
from trueup.cli.group import is_out_of_memory
from trueup.errors import DeviceError, TrueupError

if TYPE_CHECKING:
    from trueup.planning.devices import Device
    from trueup.run.pipeline import Pipeline


@contextmanager
def saying_what_fits(pipeline: Pipeline, name: str) -> Iterator[None]:
    """Within this, stage `name` is built: raises DeviceError, by the plan, when memory runs out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise _instead(pipeline, name) from error


def _instead(pipeline: Pipeline, name: str) -> DeviceError:
    found = "out of memory"
    try:
        device = _this_device()
        found += f" on {device.name}, {device.size}"
        changes = _changes(pipeline, name, device)
    except TrueupError as error:  # no shape of the base, say
        return DeviceError(name, found=found, next_step=f"trueup plan RUN.yaml; what fits is not known: {error.found}")
    if changes is None:
        return DeviceError(
            name,
            found=found,
            expected="no change of its section is predicted to need less",
            next_step="end what else uses this memory, or take a smaller base; see trueup plan RUN.yaml",
        )
    stage, section = pipeline.stages[name], pipeline.run.section(name).model_dump()
    goes_on = changes.keys() <= stage.same_steps(section, section | changes)
    typed = " ".join(f"--set {name}.{key}={as_yaml(value)}" for key, value in changes.items())
    return DeviceError(
        name,
        found=found,
        expected="less at once: " + ", ".join(f"{key} {as_yaml(value)}" for key, value in changes.items()),
        next_step=f"trueup {name} RUN.yaml {typed}"
        + (", which goes on where it was" if goes_on else " --rebuild, which begins this stage anew"),
    )


def _changes(pipeline: Pipeline, name: str, device: Device) -> dict[str, Any] | None:
    """The smallest change under which the stage is predicted to need less than it did, and to fit."""
    from trueup.planning import fit, lengths, shapes, table

    shape, _, folder = shapes.of_base(pipeline.run.model.base)
    stage, measured = pipeline.stages[name], lengths.measure(pipeline.run.data, folder)[0]
    setup = table.setup_of(pipeline, shape, device)
    terms = fit.peak_of(stage, pipeline.run, measured, shape, setup)
    if terms is None:
        return None
    usable = min(table.usable(device), terms["peak"] - 1)
    return fit.cure(stage, pipeline.run, measured, shape, setup, usable)


def _this_device() -> Device:
    """What this process computes on, by torch: it was imported where a model ran out of memory."""
    from trueup.planning import devices

    return devices.by_torch() or devices.this_cpu(timed=False)
