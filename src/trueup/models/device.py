"""The one GPU that trueup runs on, and whether it can: a GPU that is there and cannot be used is an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from trueup import ranks
from trueup.errors import DeviceError

VISIBLE = "CUDA_VISIBLE_DEVICES"
GIVEN = os.environ.get(VISIBLE)  # before we set it
OR_CPU = "; or, to run without the GPU, add --device cpu"
OLDEST = (7, 0)  # compute capability: bitsandbytes and torch have no kernels for older GPUs
NVIDIA, DISPLAY = "0x10de", "0x03"  # a vendor, and the class of graphics cards and accelerators, on the PCI bus
DRIVER_LIMIT_S = 3
NO_GPU = "No devices were found"  # what nvidia-smi prints, of some drivers with exit code 0


def use_one_gpu() -> None:
    """Leave this process one GPU, the first of those it sees: set CUDA_VISIBLE_DEVICES to choose another.

    transformers' Trainer would spread a model over all of them by `nn.DataParallel`, which TRL refuses. Call it before
    torch looks for GPUs. Of several ranks each takes the GPU with its number among those it sees.
    """
    os.environ.setdefault(
        "CUDA_DEVICE_ORDER", "PCI_BUS_ID"
    )  # as nvidia-smi numbers them; CUDA would begin with the fastest
    if ranks.count() > 1:
        return
    first = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    os.environ[VISIBLE] = first


def which_of_several() -> str:
    """A sentence that says which GPU is used, where this process was let see several; else empty. Imports torch."""
    import torch

    if not torch.cuda.is_available() or ranks.count() > 1:
        return ""
    allowed = _ask_driver("--query-gpu=name") if GIVEN is None else GIVEN.split(",")
    count = max(torch.cuda.device_count(), len(allowed))
    if count == 1:
        return ""
    name, number = torch.cuda.get_device_name(), (os.environ.get(VISIBLE) or "0").split(",")[0]
    return f"1 of {count} GPUs is used: {name}, number {number} ({VISIBLE} chooses another)"


def use_cpu() -> None:
    """Leave this process, and those it starts, no GPU. Call it before torch looks for GPUs."""
    os.environ[VISIBLE] = ""


def is_hidden() -> bool:
    """Whether somebody chose the CPU: --device cpu, or a CUDA_VISIBLE_DEVICES that names no GPU."""
    return os.environ.get(VISIBLE, "0").strip() in ("", "-1", "NoDevFiles")


def refuse_unusable() -> None:
    """Raise DeviceError where a GPU is there that this process would leave unused, or cannot use.

    Nothing is refused without a GPU, nor where somebody chose the CPU. Imports torch.
    """
    import torch

    if is_hidden():
        return
    if torch.cuda.is_available():
        _refuse_shared(int(os.environ.get("LOCAL_WORLD_SIZE") or 1), torch.cuda.device_count())
        built_for = torch.cuda.get_arch_list() if torch.version.cuda else []
        if why := _why_too_old(torch.cuda.get_device_capability(), built_for):
            raise DeviceError(
                "device",
                found=f"{torch.cuda.get_device_name()} {why}",
                expected="a GPU that torch and bitsandbytes have code for",
                next_step=f"choose another GPU by {VISIBLE}, or another build of torch{OR_CPU}",
            )
        return
    if seen := signs():
        why, cure = _why_unused()
        raise DeviceError("device", found=f"{seen}, and {why}", expected="a GPU in use", next_step=cure + OR_CPU)


def _refuse_shared(ranks: int, gpus: int) -> None:
    if 1 < ranks > gpus:
        raise DeviceError(
            "device",
            found=f"{ranks} processes on this machine, and {gpus} GPU{'s' * (gpus != 1)} for them",
            expected="a GPU for each process",
            next_step=f"start as many processes as there are GPUs, or correct {VISIBLE}",
        )


def _why_too_old(capability: tuple[int, int], built_for: Sequence[str]) -> str:
    """Why a GPU cannot be used, as the rest of a sentence; empty where it can.

    `built_for`: the architectures that torch has code for, such as sm_80 and compute_90; empty where that is unknown.
    """
    said = f"has compute capability {'.'.join(map(str, capability))}"
    if capability < OLDEST:
        return f"{said}, below {'.'.join(map(str, OLDEST))}"
    if built_for and not _has_code_for(capability, built_for):
        return f"{said}, and this build of torch has no code for it, only for {', '.join(built_for)}"
    return ""


def _has_code_for(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Machine code (sm) runs on later GPUs of the same major version, intermediate code (compute) on all later ones."""
    for kind, digits in re.findall(r"(sm|compute)_(\d+)", " ".join(built_for)):
        major, minor = int(digits[:-1]), int(digits[-1])
        if (major, minor) <= capability and (kind == "compute" or major == capability[0]):
            return True
    return False


def signs(root: Path = Path("/")) -> str:
    """By what an NVIDIA GPU shows itself on this machine, as half a sentence; empty where none does.

    `root`: the folder that holds proc, dev and sys.
    """
    if (answered := _ask_driver("--query-gpu=name")) and answered[0]:
        return f"nvidia-smi shows a GPU ({answered[0]})"
    if found := sorted(root.glob("proc/driver/nvidia/gpus/*")) or sorted(root.glob("dev/nvidia[0-9]*")):
        return f"{found[0]} shows an NVIDIA GPU"
    for vendor in sorted(root.glob("sys/bus/pci/devices/*/vendor")):
        if _text(vendor) == NVIDIA and _text(vendor.with_name("class")).startswith(DISPLAY):
            return f"{vendor.parent} is an NVIDIA GPU"
    return ""


def has_driver(root: Path = Path("/")) -> bool:
    """Whether the NVIDIA driver is loaded, or answers, as under WSL."""
    return (root / "proc/driver/nvidia/version").exists() or bool(_ask_driver("--query-gpu=name"))


def _why_unused() -> tuple[str, str]:
    """(what keeps torch from the GPU, as half a sentence; what to do about it)."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is a build for CPUs", "install one for CUDA, see the torch website"
    if not has_driver():
        return "no NVIDIA driver is loaded", "install the NVIDIA driver"
    built = f"torch {torch.__version__}, built for CUDA {torch.version.cuda},"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # the driver is too old, or shows this process no GPU
        return f"{built} cannot use it: {_first_sentence(str(error))}", "update the NVIDIA driver, or torch"
    return f"{built} does not see it", f"correct {VISIBLE}"


def _first_sentence(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0].split(". ")[0].rstrip(".")


def _ask_driver(query: str) -> list[str]:
    """The lines that nvidia-smi answers; empty where it is missing, fails or hangs."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DRIVER_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [line for line in lines if line and line != NO_GPU]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
