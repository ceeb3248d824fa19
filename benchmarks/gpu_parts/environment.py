"""Versions, and what this card reaches: its roofline, against which every other figure is read."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "triton", "kernels", "vllm")
ROWS = (1, 8, 32, 128, 2048)  # of the input of a 4-bit map: where its fused product ends and dequantizing begins


def measure(size: int) -> dict[str, Any]:
    """Speeds of copying, of half-precision products of `size` x `size`, and of NF4 maps of a 7B's MLP."""
    import torch

    from trueup.models import base

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if find_spec(name)},
        "cuda": torch.version.cuda,
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half, heavy = base.compute_dtype(), size > 1024
    a = torch.randn(size, size, device=device, dtype=half)
    buffer = torch.zeros(2**30 if heavy else 2**20, device=device, dtype=torch.uint8)
    found["matmul_tflops"] = round(2 * size**3 / seconds(lambda: a @ a, 20 if heavy else 2) / 1e12, 2)
    found["copy_gb_s"] = round(2 * buffer.numel() / seconds(buffer.clone, 10 if heavy else 2) / 1e9, 1)
    found |= _four_bit(device, half, (4096, 14336) if heavy else (64, 128), 50 if heavy else 2)
    return found


def _four_bit(device: str, half: Any, shape: tuple[int, int], times: int) -> dict[str, Any]:
    """Dequantizing a map, and the map itself for inputs of several rows, in microseconds."""
    import bitsandbytes as bnb
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    width, height = shape
    packed, state = quantize_4bit(torch.randn(height, width, device=device, dtype=half), quant_type="nf4")
    found, name = {}, f"nf4_{width}x{height}"
    with torch.no_grad():
        found[f"{name}_dequantize_us"] = round(1e6 * seconds(lambda: dequantize_4bit(packed, state), times), 1)
        for rows in ROWS:
            x = torch.randn(rows, width, device=device, dtype=half)
            took = seconds(lambda x=x: bnb.matmul_4bit(x, packed.t(), quant_state=state), times)
            found[f"{name}_us_{rows}_rows"] = round(1e6 * took, 1)
    return found


def seconds(work: Callable[[], Any], times: int) -> float:
    """Of one call, after one that warms up."""
    import torch

    for count in (1, times):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / times
