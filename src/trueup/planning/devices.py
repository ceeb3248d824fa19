"""What a stage may run on: memory, speed of multiplication, speed of memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import ConfigError


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
    measured: bool = False
    efficiency: float = 0.35  # of `flops` that training reaches

    @property
    def usable_bytes(self) -> int:
        return round(0.95 * self.memory_bytes)


GIB = 2**30
GPUS = {
    # 16 GB less what error correction takes; fp16 tensor cores, no bf16
    "t4": Device(
        name="T4",
        size="16 GB",
        memory_bytes=15 * 10**9,
        flops=65e12,
        bandwidth_bytes_s=320e9,
        compute_bytes=2,
        is_gpu=True,
    ),
    "24gb": Device(
        name="24 GB (as an RTX 3090)",
        size="24 GB",
        memory_bytes=24 * GIB,
        flops=71e12,
        bandwidth_bytes_s=936e9,
        compute_bytes=2,
        is_gpu=True,
    ),
    "80gb": Device(
        name="80 GB (as an A100)",
        size="80 GB",
        memory_bytes=80 * GIB,
        flops=312e12,
        bandwidth_bytes_s=2039e9,
        compute_bytes=2,
        is_gpu=True,
    ),
}
NAMES = ("auto", "cpu", *GPUS)


def find(name: str, *, timed: bool = True) -> Device:
    """The device called `name`; "auto" is this machine's GPU, else its CPU. Raises ConfigError for an unknown one.

    Without `timed` a CPU's speed is left at 0: what fits does not depend on it.
    """
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
    """The first NVIDIA GPU as its driver describes it, with the speeds of the nearest one we know; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        return None
    name, _, mebibytes = done.stdout.splitlines()[0].rpartition(",")
    memory = int(mebibytes) * 2**20
    near = min(GPUS.values(), key=lambda gpu: abs(gpu.memory_bytes - memory))
    return Device(
        name=name.strip(),
        size=f"{memory / 1e9:.0f} GB",
        memory_bytes=memory,
        flops=near.flops,
        bandwidth_bytes_s=near.bandwidth_bytes_s,
        compute_bytes=2,
        is_gpu=True,
    )
