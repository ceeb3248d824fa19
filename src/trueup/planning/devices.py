"""What a stage may run on: memory, speed of multiplication, speed of memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from trueup.errors import ConfigError
from trueup.models import device
from trueup.planning import gpus
from trueup.planning.gpus import Gpu

DRIVER_LIMIT_S = 10
LINE = re.compile(r"(.+?), *([^,]+?)(?:, *(?:(\d+\.\d+)|\[[^,]*\]))?")  # of nvidia-smi: name, MiB, capability


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device. `flops` and `bandwidth_bytes_s` are its makers' figures, or measured here (`measured`)."""

    name: str
    size: str  # as people say it
    memory_bytes: int
    flops: float  # multiply and add count two, in the compute dtype
    bandwidth_bytes_s: float
    compute_bytes: int
    is_gpu: bool
    capability: tuple[int, int] | None = None  # of a GPU
    measured: bool = False
    speeds_of: str = ""  # the GPU whose speeds are assumed, where this one is not listed
    efficiency: float = 0.35  # of `flops` that training reaches

    @property
    def usable_bytes(self) -> int:
        return round(0.95 * self.memory_bytes)


def _listed(gpu: Gpu, name: str) -> Device:
    return Device(
        name=name,
        size=f"{round(gpu.memory_bytes / (gpus.GIB if gpu.memory_bytes % gpus.GIB == 0 else 1e9))} GB",
        memory_bytes=gpu.memory_bytes,
        flops=gpu.flops,
        bandwidth_bytes_s=gpu.bandwidth_bytes_s,
        compute_bytes=2,
        is_gpu=True,
        capability=gpu.capability,
    )


GPUS = {name: _listed(gpu, name.upper()) for name, gpu in gpus.TABLE.items()} | {
    "t4": replace(_listed(gpus.TABLE["t4"], "T4"), size="16 GB"),
    "24gb": _listed(gpus.TABLE["3090"], "24 GB (as an RTX 3090)"),
    "80gb": _listed(gpus.TABLE["a100"], "80 GB (as an A100)"),
}
NAMES = ("auto", "cpu", *GPUS)


def find(name: str, *, timed: bool = True) -> Device:
    """The device called `name`; "auto" is this machine's GPU, else its CPU. Raises ConfigError for an unknown one.

    Without `timed` a CPU's speed is left at 0: what fits does not depend on it.
    """
    name = name.lower()
    if name == "auto":
        return _this_gpu() or this_cpu(timed=timed)
    if name == "cpu":
        return this_cpu(timed=timed)
    if name not in GPUS:
        raise ConfigError(f"--device {name}", found="unknown device", expected=f"one of {', '.join(NAMES)}")
    return GPUS[name]


def this_cpu(*, timed: bool = True) -> Device:
    """This machine, its multiplication `timed` for a fifth of a second."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(
        name=f"this CPU, {os.cpu_count()} cores",
        size=f"{memory / 1e9:.0f} GB",
        memory_bytes=memory,
        flops=_matmul_flops() if timed else 0.0,
        bandwidth_bytes_s=20e9,
        compute_bytes=2 if cpu_has_bf16() else 4,
        is_gpu=False,
        measured=True,
        efficiency=0.45,
    )


def cpu_has_bf16() -> bool:
    """True where the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX): elsewhere training computes in fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _matmul_flops(size: int = 1024, seconds: float = 0.2) -> float:
    """fp32 multiplications per second of two square matrices; numpy, since importing torch takes seconds."""
    import numpy as np

    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    a @ a
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        a @ a
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - began)


def _this_gpu() -> Device | None:
    """The first NVIDIA GPU that this process sees, as its driver describes it; None without one."""
    if shutil.which("nvidia-smi") is None:  # as in many containers
        return by_torch() if device.signs() and not device.is_hidden() else None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in ("", "-1"):
        return None
    chosen = [f"--id={visible.split(',')[0].strip()}"] if visible else []
    for fields in ("name,memory.total,compute_cap", "name,memory.total"):  # older drivers do not know the third
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", *chosen]
        try:
            done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=DRIVER_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        lines = [line for line in done.stdout.splitlines() if line.count(",") >= fields.count(",")]
        if done.returncode == 0 and lines:
            return described(lines[0])
    return None


def by_torch() -> Device | None:
    """The GPU that torch computes on, as torch describes it; None where it uses none. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return None
    made = torch.cuda.get_device_properties()
    return described(f"{made.name}, {made.total_memory // 2**20}, {made.major}.{made.minor}")


def described(line: str) -> Device:
    """The GPU of a line of nvidia-smi: its name, mebibytes of memory and, on newer drivers, compute capability.

    The speeds are those of its kind where that is listed, else a guess, and `speeds_of` says whose. Raises ConfigError
    where the driver does not say the memory of a GPU that is not listed, as of those that share the host's.
    """
    name, mebibytes, more = LINE.fullmatch(line.strip()).groups()  # type: ignore[union-attr]
    capability = (int(more.split(".")[0]), int(more.split(".")[1])) if more else (7, 5)
    found = gpus.known(name)
    if not mebibytes.isdigit() and found is None:
        raise ConfigError(
            "nvidia-smi",
            found=f"memory of {name}: {mebibytes}",
            expected="a number of MiB",
            next_step=f"add --device and a GPU of about its memory: {', '.join(GPUS)}",
        )
    memory = int(mebibytes) * 2**20 if mebibytes.isdigit() else found[1].memory_bytes  # type: ignore[index]
    key, gpu = found or gpus.nearest(capability, memory)
    return replace(
        _listed(gpu, name),
        speeds_of="" if found else key.upper(),
        size=f"{memory / 1e9:.0f} GB" + ("" if mebibytes.isdigit() else ", as listed: the driver does not say"),
        memory_bytes=memory,
        capability=capability if more else gpu.capability,
    )
