"""y = W x for a few columns on a CPU: a row of W is decoded in registers, just where it is used.

A library's matrix product needs the weight dense, and for 32 columns dequantizing it takes as long as multiplying.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueup.cpu import machine_code
from trueup.cpu.kernel_source import ARGUMENTS, BLOCK, COLUMNS, QUAD, module
from trueup.cpu.linear import block_scales


def fits(weight: Any) -> bool:
    """True where a kernel reads `weight`, (M, K), as it is stored: NF4 in blocks of 64, or bf16."""
    return _kernel(weight) is not None


def padded(num_columns: int) -> int:
    """The least number of columns, at least as many, that a kernel computes."""
    return -(-num_columns // COLUMNS) * COLUMNS


class Product:
    """W x + high low: W (M, K) frozen, read as it is stored; `high` (M, rank) is what a LoRA adds to it."""

    def __init__(self, weight: Any, high: Tensor | None = None, *, transposed: bool = False) -> None:
        kernel = _kernel(weight, transposed)
        if kernel is None:
            raise ValueError(f"no kernel for {type(weight).__name__} of {weight.dtype}")
        self.kernel, self.transposed = kernel, transposed
        state = getattr(weight, "quant_state", None)
        rows, columns = weight.shape if state is None else state.shape
        self.shape, self.rank = (int(rows), int(columns)), 0 if high is None else high.shape[1]
        tensors = {"weight": weight.data} | ({} if high is None else {"high": high.float().contiguous()})
        if state is not None:
            tensors |= {"scales": block_scales(state), "code": state.code.float()}
        self.arguments = machine_code.Arguments(ARGUMENTS, M=self.shape[0], K=self.shape[1], rank=self.rank, **tensors)

    def __call__(self, x: Tensor, low: Tensor, out: Tensor) -> None:
        """x (K, R), low (rank, R) -> out (M, R) or (R, M), all contiguous fp32, R a multiple of 8; else ValueError."""
        num_columns = x.shape[1]
        of_out = (num_columns, self.shape[0]) if self.transposed else (self.shape[0], num_columns)
        shapes = {"x": (self.shape[1], num_columns), "low": (self.rank, num_columns), "y": of_out}
        for (name, shape), tensor in zip(shapes.items(), (x, low, out), strict=True):
            if tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)}, not contiguous fp32 of {shape}")
        if num_columns % COLUMNS:
            raise ValueError(f"{num_columns} columns, not a multiple of {COLUMNS}")
        self.arguments.set(x=x, low=low, y=out, R=num_columns)
        self.kernel.run(self.arguments.array)


def _kernel(weight: Any, transposed: bool = False) -> machine_code.Kernel | None:
    state = getattr(weight, "quant_state", None)
    rows, columns = weight.shape if state is None else state.shape
    if weight.device.type != "cpu" or rows % QUAD or columns % BLOCK:
        return None
    if state is not None:
        nf4 = state.quant_type == "nf4" and state.blocksize == BLOCK
        return machine_code.compiled(module("nf4", transposed)) if nf4 else None
    bf16 = weight.dtype == torch.bfloat16 and weight.is_contiguous()
    return machine_code.compiled(module("bf16", transposed)) if bf16 else None
