"""`trueup plan`: a line per stage, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trueup.planning import duration, fit, learned, lengths
from trueup.planning.devices import Device
from trueup.planning.layouts import PACKED
from trueup.planning.loads import plan
from trueup.planning.memory import STORED, Setup
from trueup.planning.shapes import Shape, of_base, targets
from trueup.run.pipeline import Pipeline

NUM_TERMS = 3  # of a peak that are shown, the largest
PROGRAM_BYTES = 0.7e9  # Python, torch and the libraries themselves, on a CPU


@dataclass(frozen=True)
class Line:
    """One stage of the plan. `peak` is in bytes above the program itself; None where no model is loaded."""

    stage: str
    state: str
    terms: dict[str, int] | None = None
    seconds: float | None = None
    fits: bool = True
    cure: fit.Changes | None = None
    measured: bool = False
    learned: learned.Ratio | None = None

    @property
    def peak(self) -> int | None:
        return None if self.terms is None else self.terms["peak"]


@dataclass(frozen=True)
class Plan:
    """All lines, and what they rest on."""

    lines: list[Line]
    shape: Shape
    shape_from: str
    left_out: list[str]  # files that are not there, counted as 100 rows


def setup_of(pipeline: Pipeline, shape: Shape, device: Device) -> Setup:
    """How the run file's base and adapter are held on `device`."""
    adapter, exact = pipeline.run.adapter, device.is_gpu and pipeline.run.model.dtype == "float32"
    return Setup(
        four_bit=adapter.kind != "lora",
        r=adapter.r,
        targets=targets(adapter.targets, shape),
        dora=adapter.kind == "dora",
        compute_bytes=4 if exact else device.compute_bytes,
        stored_bytes=4 if exact else STORED,
        memory_bytes=device.memory_bytes,
        packed=not device.is_gpu
        and shape.family in PACKED
        and adapter.kind in ("lora", "qlora")
        and adapter.lora_dropout == 0,
        on_gpu=device.is_gpu,
    )


def usable(device: Device) -> int:
    """Bytes a stage may take on `device`."""
    return device.usable_bytes - (0 if device.is_gpu else round(PROGRAM_BYTES))


def make(pipeline: Pipeline, device: Device) -> Plan:
    """The plan of a run on a device. Loads no weights; see `shapes.of_base` for what it raises."""
    run = pipeline.run
    shape, shape_from, folder = of_base(run.model.base)
    setup = setup_of(pipeline, shape, device)
    measured, left_out = lengths.measure(run.data, folder)
    known = learned.ratios(pipeline, device, measured, shape, setup)
    lines = []
    for state in pipeline.states():
        stage = pipeline.stages[state.stage]
        planned = plan(stage, run, measured)
        if planned is None:
            lines.append(Line(state.stage, state.state))
            continue
        terms = fit.peak_of(stage, run, measured, shape, setup)
        ratio = known.get(state.stage)
        if terms is not None and ratio is not None:
            terms = learned.corrected(terms, ratio)
        fits = terms is not None and terms["peak"] <= usable(device)
        lines.append(
            Line(
                stage=state.stage,
                state=state.state,
                learned=ratio,
                terms=terms,
                seconds=duration.seconds(shape, setup, *planned, device),
                fits=fits,
                cure=None if fits else fit.cure(stage, run, measured, shape, setup, usable(device)),
            )
        )
    return Plan(lines, shape, shape_from, left_out)


def probe(pipeline: Pipeline, made: Plan, device: Device, say: Callable[[str], None]) -> Plan:
    """The plan with the peaks of its training stages measured; those that are complete are left as they are."""
    import tempfile

    from trueup.planning import probe

    lines = []
    for line in made.lines:
        if pipeline.stages[line.stage].two_steps and line.state != "complete":
            say(f"two steps of {line.stage}")
            with tempfile.TemporaryDirectory() as scratch:
                found = probe.measure(pipeline, line.stage, Path(scratch))
            peak = round(found["peak_bytes"])
            fits = peak <= usable(device)
            line = replace(line, terms={"peak": peak}, fits=fits, cure=None if fits else line.cure, measured=True)
        lines.append(line)
    return replace(made, lines=lines)


def figures(made: Plan, device: Device) -> dict[str, Any]:
    """The plan as JSON values: memory in bytes, time in seconds, and for each stage that does not fit what would."""
    stages = [
        {
            "stage": line.stage,
            "state": line.state,
            "peak_bytes": line.peak,
            "terms_bytes": line.terms,
            "seconds": line.seconds,
            "fits": line.fits,
            "would_fit_with": line.cure,
            "measured": line.measured,
            "earlier_records": None if line.learned is None else vars(line.learned),
        }
        for line in made.lines
    ]
    return {
        "parameters": made.shape.linear_parameters + made.shape.other_parameters,
        "device": {"name": device.name, "memory_bytes": device.memory_bytes, "is_gpu": device.is_gpu},
        "usable_bytes": usable(device),
        "stages": stages,
        "fits": all(line.fits for line in made.lines),
        "counted_as_100_rows": made.left_out,
    }


def show(made: Plan, device: Device, base: str) -> None:
    """Print the plan."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    parameters = (made.shape.linear_parameters + made.shape.other_parameters) / 1e9
    console.print(
        Text(f"{base}: {parameters:.2f}B parameters ({made.shape_from}); on {device.name}, {device.size}"),
        soft_wrap=True,
    )
    table = Table("stage", "state", "peak GB", "mostly, GB", "time", "fits", box=box.SIMPLE_HEAD)
    for line in made.lines:
        state = Text(line.state, no_wrap=True)
        if line.terms is None:
            table.add_row(line.stage, state, "", "", _waits(line.stage), "")
            continue
        table.add_row(
            line.stage,
            state,
            f"{'' if line.measured else '~'}{line.terms['peak'] / 1e9:.2f}",
            "measured" if line.measured else _largest(line.terms),
            "" if line.state == "complete" or line.seconds is None else f"~{_duration(line.seconds)}",
            Text("yes", "green") if line.fits else Text("no", "bold red"),
        )
    console.print(table)
    for note in made.left_out:
        console.print(Text(f"{note}; counted as 100 rows", "yellow"), soft_wrap=True)
    if device.speeds_of:
        said = f"{device.name} is not in the table of GPUs: times are those of a {device.speeds_of}"
        console.print(Text(said, "yellow"), soft_wrap=True)
    for line in made.lines:
        if line.learned is not None:
            console.print(Text(f"{line.stage}: {line.learned.in_words()}"), soft_wrap=True)
    for sentence in verdict(made, device):
        console.print(Text(sentence), soft_wrap=True)
    console.print(Text("~ is predicted, not measured: --probe runs two real steps of each stage", "dim"))


def verdict(made: Plan, device: Device) -> list[str]:
    """`fits in 16 GB: yes`, or no and for each stage the change that would make it fit."""
    size = device.size
    failing = [line for line in made.lines if not line.fits]
    if not failing:
        return [f"fits in {size}: yes"]
    sentences = [f"fits in {size}: no"]
    for line in failing:
        if line.cure is None:
            sentences.append(f"  {line.stage}: no change of its section is enough; a smaller model, or a larger device")
        else:
            changes = " ".join(f"--set {line.stage}.{key}={_yaml(value)}" for key, value in line.cure.items())
            sentences.append(f"  {line.stage} would fit with {changes}")
    return sentences


def _largest(terms: dict[str, int]) -> str:
    parts = sorted((size, name) for name, size in terms.items() if name != "peak")[::-1][:NUM_TERMS]
    return ", ".join(f"{name.replace('_', ' ')} {size / 1e9:.2f}" for size, name in parts if size > 5e6)


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _waits(stage: str) -> str:
    return "people" if stage == "collect" else ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
