"""What earlier stages took on this GPU, against what is predicted of them: the plan is corrected by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trueup.planning import fit
from trueup.planning.devices import Device
from trueup.planning.lengths import Lengths
from trueup.planning.memory import Setup
from trueup.planning.shapes import Shape, targets
from trueup.run.pipeline import Pipeline
from trueup.run.record import read_record
from trueup.run.run_file import AdapterConfig

RECORDS = ("*/*/record.json", "*/round-*/*/record.json")  # of all runs beside this one, and of what was set aside


@dataclass(frozen=True)
class Ratio:
    """The most that tensors took in `num_records` earlier stages of a kind, over what is predicted of that one."""

    ratio: float
    num_records: int
    tensor_bytes: int
    predicted_bytes: int

    def in_words(self) -> str:
        """For the plan."""
        records = f"{self.num_records} earlier record{'s' * (self.num_records != 1)}"
        return (
            f"peak times {self.ratio:.2f}, learned from {records} on this GPU, where tensors took "
            f"{self.tensor_bytes / 1e9:.2f} GB and {self.predicted_bytes / 1e9:.2f} are predicted"
        )


def ratios(pipeline: Pipeline, device: Device, lengths: Lengths, shape: Shape, setup: Setup) -> dict[str, Ratio]:
    """For each stage that has records of the same base on `device`, what was measured over what is predicted.

    Each record is predicted with its own settings and the lengths of today's data. Of several the largest counts.
    """
    found: dict[str, Ratio] = {}
    if not device.is_gpu:
        return found
    for record in _records(pipeline, device):
        name, tensors = record["stage"], record["peak_tensor_bytes"]
        predicted = _predicted(pipeline, record, lengths, shape, setup)
        if not predicted:
            continue
        before = found.get(name)
        number = 1 + (before.num_records if before else 0)
        this = Ratio(tensors / predicted, number, tensors, predicted)
        found[name] = max(this, before, key=lambda one: one.ratio) if before else this
        found[name] = Ratio(found[name].ratio, number, found[name].tensor_bytes, found[name].predicted_bytes)
    return found


def corrected(terms: dict[str, int], ratio: Ratio) -> dict[str, int]:
    """The terms of a peak with one more, `learned`, by which tensors take `ratio` of what was predicted."""
    more = round((ratio.ratio - 1) * (terms["peak"] - terms["overhead"]))
    return terms | {"learned": more, "peak": terms["peak"] + more}


def _records(pipeline: Pipeline, device: Device) -> Iterator[dict[str, Any]]:
    folder, base = pipeline.folder.parent, Path(pipeline.run.model.base).name
    for path in sorted(path for pattern in RECORDS for path in folder.glob(pattern)):
        record = read_record(path)
        if record is None or record.get("stage") not in pipeline.stages or ".partial" in path.parent.name:
            continue
        of_base = Path(str((record.get("base") or {}).get("name"))).name
        measured = record.get("peak_tensor_bytes")
        if record.get("device_name") == device.name and of_base == base and isinstance(measured, int) and measured:
            yield record


def _predicted(pipeline: Pipeline, record: dict[str, Any], lengths: Lengths, shape: Shape, setup: Setup) -> int | None:
    """Bytes of tensors that are predicted of a stage with the settings of its record; None where it cannot be read."""
    stage = pipeline.stages[record["stage"]]
    try:
        section = stage.config.model_validate(record["config"])
        adapter = AdapterConfig.model_validate(record["adapter"])
    except (ValidationError, KeyError):  # settings of another version
        return None
    run = pipeline.run.model_copy(update={stage.name: section, "adapter": adapter})
    held = _held(setup, adapter, shape)
    terms = fit.peak_of(stage, run, lengths, shape, held)
    return None if terms is None else terms["peak"] - terms["overhead"]


def _held(setup: Setup, adapter: AdapterConfig, shape: Shape) -> Setup:
    """`setup` with the adapter of a record."""
    chosen = targets(adapter.targets, shape)
    return replace(setup, four_bit=adapter.kind != "lora", r=adapter.r, targets=chosen, dora=adapter.kind == "dora")
