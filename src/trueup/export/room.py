"""Is there room: on disk for what an export writes, in memory for another base to measure."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from trueup.errors import StageError

# bytes per weight; of the block formats a block of 32 weights and its scales
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
BYTES |= {"q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32}
MARGIN = 1.05


def refuse_full_disk(out: Path, num_parameters: int, forms: Iterable[str], rank_bytes: int) -> None:
    """Raises StageError unless the disk of `out` holds a model of `num_parameters` in each of `forms` (keys of BYTES).

    `rank_bytes` are those of the adapter.
    """
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    needed = MARGIN * (rank_bytes + sum(BYTES[form] for form in forms) * num_parameters)
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StageError(
            "export",
            found=f"{free / 1e9:.1f} GB free on the disk of {there}",
            expected=f"{needed / 1e9:.1f} GB for {', '.join(forms)} weights of {num_parameters / 1e9:.2f} billion "
            "parameters, and the adapter",
            next_step="free some space, or write less: trueup export RUN.yaml --to adapter",
        )


def memory_bytes() -> int:
    """Bytes of memory that are free for a model: of the GPU where there is one, else of the machine or container."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free)
    free = 1024 * _field(Path("/proc/meminfo"), "MemAvailable:", 2**40)
    group = Path("/sys/fs/cgroup")
    limit, used = _field(group / "memory.max", "", 2**60), _field(group / "memory.current", "", 0)
    return min(free, limit - used + _field(group / "memory.stat", "file ", 0))  # what is cached of files can go


def _field(path: Path, name: str, unknown: int) -> int:
    """The number after `name` in a file of the kernel's; `unknown` where it does not say."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith(name)).removeprefix(name).split()[0])
    except (OSError, ValueError, StopIteration, IndexError):  # no container, or one without a limit: "max"
        return unknown
