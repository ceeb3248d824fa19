"""What this machine can train, found without importing torch: its build, the dtype, and which sizes of bases fit."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from trueup.errors import ConfigError
from trueup.models import device

Fact = tuple[str, str]  # what, and how it is here
METHODS = ("dpo", "ppo")  # the one that needs least of those that align, and the one that needs most


def facts(gpus: list[str] | None) -> Iterator[Fact]:
    """The device that stages would run on, its dtype, and the largest base of each training stage.

    `gpus`: what `machine.ask_driver` found.
    """
    from trueup.planning import capacity, devices
    from trueup.stages import STAGES

    yield "torch is built for", build() or "nothing: torch is not installed"
    seen = device.signs() if gpus is None else ""  # of a GPU, where nvidia-smi is missing
    on_gpu = bool(gpus or seen) and not device.is_hidden()
    try:
        here = devices.find("auto" if on_gpu else "cpu", timed=False)
    except ConfigError as error:  # the driver does not say the memory
        yield "device", str(error)
        return
    yield "device", f"{here.name}, {here.size}"
    if gpus and not on_gpu:
        yield "GPU", f"left unused: {device.VISIBLE} names none"
    elif seen and not here.is_gpu:
        yield "GPU", f"{seen}, and neither nvidia-smi nor torch says what it is"
    elif on_gpu and not here.is_gpu:
        yield "GPU", f"not found: nvidia-smi shows none of {device.VISIBLE}={device.GIVEN or ''}"
    yield "computes in", _dtype(here.capability)
    if here.capability and here.capability < device.OLDEST:
        return
    found: dict[str, str | None] = {}
    for method in METHODS:
        found |= capacity.largest(here, STAGES, method)
    for stage, base in found.items():
        yield stage, f"{base}, predicted to fit" if base else "none of the sizes that are looked at"


def warnings(has_gpu: bool) -> Iterator[str]:
    """What keeps the GPU that is there from being used."""
    if device.is_hidden():
        return
    seen, built = device.signs(), build()
    if seen and built == "CPUs":
        yield f"{seen}, and torch is a build for CPUs: install one for CUDA, see the torch website"
    elif seen and not has_gpu and not device.has_driver():
        yield f"{seen}, and no NVIDIA driver is loaded: install the driver"


def build() -> str:
    """What torch is built for, such as "CUDA 13.0", by its file version.py; empty where it is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return "an unknown device"
    for key, name in (("cuda", "CUDA"), ("hip", "ROCm")):
        if named := re.search(rf"^{key}\b[^=\n]*= *'([^']+)'", text, re.MULTILINE):
            return f"{name} {named.group(1)}"
    return "CPUs"


def _dtype(of_gpu: tuple[int, int] | None) -> str:
    """What products are computed in; see models.base.compute_dtype."""
    from trueup.planning.devices import cpu_has_bf16

    if of_gpu is None:
        return "bf16" if cpu_has_bf16() else "fp32"
    if of_gpu < device.OLDEST:
        return f"nothing: compute capability {of_gpu[0]}.{of_gpu[1]} is below 7.0"
    return "bf16" if of_gpu >= (8, 0) else "fp16 with gradient scaling: this GPU has no bf16 arithmetic"
