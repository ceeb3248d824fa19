"""NVIDIA GPUs as their maker describes them, found by the name that the driver gives.

`flops` are dense products of 16-bit matrices summed in fp32, from data sheets and, for GeForce, from the whitepapers of
their architectures; the figures with sparsity are twice as high, and so are those of GeForce with sums in fp16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GB = 10**9
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    pattern: str  # a regular expression, found in the driver's name, upper or lower case
    capability: tuple[int, int]
    memory_bytes: int
    bandwidth_bytes_s: float
    flops: float


# by the name that --device takes; of two that fit a driver's name, the first is meant
TABLE = {
    "v100": Gpu(r"\bV100.*32GB", (7, 0), 32 * GIB, 900e9, 125e12),
    "v100-16gb": Gpu(r"\bV100\b", (7, 0), 16 * GIB, 900e9, 125e12),
    "t4": Gpu(r"\bT4\b", (7, 5), 15 * GB, 320e9, 65e12),  # 16 GB less what error correction takes
    "a10g": Gpu(r"\bA10G\b", (8, 6), 24 * GB, 600e9, 70e12),
    "a10": Gpu(r"\bA10\b", (8, 6), 24 * GB, 600e9, 125e12),
    "3090": Gpu(r"\bRTX 3090\b(?! Ti)", (8, 6), 24 * GIB, 936e9, 71e12),
    "a100-40gb": Gpu(r"\bA100.*40GB", (8, 0), 40 * GIB, 1555e9, 312e12),
    "a100-pcie": Gpu(r"\bA100 80GB PCIe", (8, 0), 80 * GIB, 1935e9, 312e12),
    "a100": Gpu(r"\bA100\b", (8, 0), 80 * GIB, 2039e9, 312e12),
    "l4": Gpu(r"\bL4\b", (8, 9), 24 * GB, 300e9, 121e12),
    "4090": Gpu(r"\bRTX 4090\b(?! (D|Laptop))", (8, 9), 24 * GIB, 1008e9, 165.2e12),
    "l40s": Gpu(r"\bL40S\b", (8, 9), 48 * GB, 864e9, 362e12),
    "rtx6000ada": Gpu(r"\bRTX 6000 Ada\b", (8, 9), 48 * GB, 960e9, 364.2e12),
    "h100-pcie": Gpu(r"\bH100 PCIe", (9, 0), 80 * GIB, 2000e9, 756e12),
    "h100-nvl": Gpu(r"\bH100 NVL", (9, 0), 94 * GB, 3900e9, 835e12),
    "h100": Gpu(r"\bH100\b", (9, 0), 80 * GIB, 3350e9, 989e12),
    "h200-nvl": Gpu(r"\bH200 NVL", (9, 0), 141 * GB, 4800e9, 835e12),
    "h200": Gpu(r"\bH200\b", (9, 0), 141 * GB, 4800e9, 989e12),
    "b200": Gpu(r"\bB200\b", (10, 0), 180 * GB, 8000e9, 2250e12),
    "5090": Gpu(r"\bRTX 5090\b(?! (D|Laptop))", (12, 0), 32 * GIB, 1792e9, 209.5e12),
}


def known(name: str) -> tuple[str, Gpu] | None:
    """(key of TABLE, GPU) of what the driver calls `name`; None where it is not listed."""
    found = ((key, gpu) for key, gpu in TABLE.items() if re.search(gpu.pattern, name, re.IGNORECASE))
    return next(found, None)


def nearest(capability: tuple[int, int], memory_bytes: int) -> tuple[str, Gpu]:
    """The slowest GPU of this generation, else of the generation before: a guess for one that is not listed.

    Of the same generation, the one with the nearest memory.
    """
    generations = sorted({gpu.capability for gpu in TABLE.values()})
    mine = max((one for one in generations if one <= capability), default=generations[0])
    alike = [(key, gpu) for key, gpu in TABLE.items() if gpu.capability == mine]
    return min(alike, key=lambda item: (abs(item[1].memory_bytes - memory_bytes), item[1].flops))
