"""What a bug report should say of the machine, found in seconds: no torch is imported, no secret is read."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trueup.models import device

Fact = tuple[str, str]  # what, and how it is here

PACKAGES = (
    *("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "safetensors"),
    *("huggingface_hub", "pydantic", "ruamel.yaml", "click", "rich", "httpx", "label-studio-sdk", "pyarrow"),
    *("llvmlite", "vllm"),
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
VARIABLES = (
    *("TRUEUP_CPU", "TRUEUP_GPU", "TRUEUP_CACHE", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
    *("HF_HOME", "TRANSFORMERS_OFFLINE", "NO_COLOR"),
)
SECRET_VARIABLES = ("HF_TOKEN", "LABEL_STUDIO_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
DRIVER_LIMIT_S = 3
FIELDS = "name,memory.total,memory.used,driver_version"  # what nvidia-smi is asked for
WALK_LIMIT_S = 0.5  # for the size of one cache


def software() -> Iterator[Fact]:
    """Versions of Python and of the packages that decide what training does."""
    from trueup import __version__

    yield "trueup", f"{__version__}, {Path(__file__).parents[1]}"
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", platform.platform()
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":  # only some have it
                yield name, "not installed"


def hardware(gpus: list[str] | None) -> Iterator[Fact]:
    """Processor, memory, disk, and the GPUs that `ask_driver` found."""
    flags = _after_colon("/proc/cpuinfo", "flags").split()
    named = _after_colon("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "CPU", f"{named}, {usable} of {os.cpu_count()} cores"
    yield "CPU has", " ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of " + " ".join(CPU_FLAGS)
    total, free = (_after_colon("/proc/meminfo", key).removesuffix(" kB") for key in ("MemTotal", "MemAvailable"))
    if total.isdigit() and free.isdigit():
        yield "memory", f"{int(free) / 2**20:.1f} of {int(total) / 2**20:.1f} GiB free"
    for number, gpu in enumerate(gpus or []):
        yield f"GPU {number}", gpu
    if gpus == []:
        yield "GPU", "the NVIDIA driver shows none"
    elif gpus is None:
        seen = device.signs()
        yield "GPU", f"{seen}, and nvidia-smi does not answer" if seen else "no NVIDIA driver answers (nvidia-smi)"
    usage = shutil.disk_usage(Path.cwd())
    yield "disk, here", f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"


def ask_driver() -> list[str] | None:
    """A line for each NVIDIA GPU: name, memory, driver, compute capability. None where no driver answers."""
    for fields in (f"{FIELDS},compute_cap", FIELDS):  # older drivers do not know the last
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=DRIVER_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode == 0:
            commas = fields.count(",")
            return [
                _in_words(*line.rsplit(",", commas)) for line in done.stdout.splitlines() if line.count(",") >= commas
            ]
    return None


def _in_words(name: str, total: str, used: str, driver: str, capability: str = "not said by it") -> str:
    name, total, used, driver, capability = (part.strip() for part in (name, total, used, driver, capability))
    return f"{name}, {total} ({used} used), driver {driver}, compute capability {capability}"


def places(port: int, data_dir: Path) -> Iterator[Fact]:
    """The caches and their sizes, Label Studio and its port."""
    from trueup.feedback import server
    from trueup.models.packaged import cache_dir

    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub")
    for name, path in (("trueup's cache", cache_dir()), ("hub's cache", hub.expanduser())):
        yield name, f"{path}, {_size(path)}"
    installed = sorted(path.parent.name for path in cache_dir().glob("label-studio-*/.complete"))
    yield "Label Studio", f"{', '.join(installed)} is installed" if installed else "not installed (made when needed)"
    running = server.is_running(data_dir)
    where = server.login(data_dir)["url"] if running else ""
    yield "its server", f"running at {where}, {data_dir}" if running else f"not running in {data_dir}"
    if not running:
        yield f"port {port}", "free" if _is_free(port) else "taken by another program"


def settings() -> Iterator[Fact]:
    """Variables that change what happens; of secrets and proxies only that they are set."""
    if device.GIVEN is not None:
        yield device.VISIBLE, device.GIVEN
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]
    for name in SECRET_VARIABLES:
        if os.environ.get(name):
            yield name, "set (not shown)"


def hub(is_reachable: Callable[[], bool]) -> Iterator[Fact]:
    """Whether models can be fetched."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        yield "hub", f"{constants.ENDPOINT}, not asked: HF_HUB_OFFLINE"
    else:
        yield "hub", f"{constants.ENDPOINT} " + ("answers" if is_reachable() else "does not answer")


def _after_colon(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _size(folder: Path) -> str:
    began, total = time.monotonic(), 0
    if not folder.is_dir():
        return "not there"
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - half the time of a Path
            except OSError:
                continue
        if time.monotonic() - began > WALK_LIMIT_S:
            return f"more than {total / 1e9:.1f} GB"
    return f"{total / 1e9:.1f} GB"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
