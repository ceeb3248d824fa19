"""y = W x for a few columns on a CPU: a row of W is decoded in registers, just where it is used.

A library's matrix product needs the weight dense, and for 32 columns dequantizing it takes as long as multiplying.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trueup.cpu import kernel_source, machine_code, precision, tile_operands, tile_source
from trueup.cpu.kernel_source import ARGUMENTS, BLOCK, QUAD
from trueup.layers import block_scales


def fits(weight: Tensor) -> bool:
    """True where a kernel reads `weight`, (M, K), as it is stored: NF4 in blocks of 64, or bf16."""
    return _kernel(weight) is not None


def columns() -> int:
    """Kernels take a multiple of so many columns on this processor."""
    return tile_operands.COLUMNS if precision.has_tiles() else kernel_source.COLUMNS


def padded(num_columns: int) -> int:
    """The least number of columns, at least as many, that a kernel computes."""
    return -(-num_columns // columns()) * columns()


class Product:
    """W x + high low: W (M, K) frozen, read as it is stored; `high` (M, rank) is what a LoRA adds to it.

    Where the processor multiplies bf16 tiles (AMX), W, x, `high` and `low` are rounded to bf16 and their products
    summed in fp32; else all is fp32.
    """

    def __init__(self, weight: Tensor, high: Tensor | None = None, *, transposed: bool = False) -> None:
        kernel = _kernel(weight, transposed)
        if kernel is None:
            raise ValueError(f"no kernel for {type(weight).__name__} of {weight.dtype}")
        self.kernel, self.transposed, self.by_tiles = kernel, transposed, _by_tiles(weight)
        state = getattr(weight, "quant_state", None)
        self.shape, self.rank = _shape(weight), 0 if high is None else high.shape[1]
        tensors = {"weight": weight.data}
        if high is not None and self.by_tiles:
            missing = -self.rank % tile_operands.DEEP
            tensors["high"] = torch.nn.functional.pad(high, (0, missing)).to(torch.bfloat16).contiguous()
        elif high is not None:
            tensors["high"] = high.float().contiguous()
        if state is not None:
            tensors |= {"scales": block_scales(state), "code": state.code.float()}
        self.arguments = machine_code.Arguments(ARGUMENTS, M=self.shape[0], K=self.shape[1], rank=self.rank, **tensors)

    def __call__(self, x: Tensor, low: Tensor, out: Tensor) -> None:
        """x (K, R), low (rank, R) -> out (M, R) or (R, M), all contiguous fp32, R a multiple of `columns()`; else
        ValueError.
        """
        num_columns = x.shape[1]
        of_out = (num_columns, self.shape[0]) if self.transposed else (self.shape[0], num_columns)
        shapes = {"x": (self.shape[1], num_columns), "low": (self.rank, num_columns), "y": of_out}
        for (name, shape), tensor in zip(shapes.items(), (x, low, out), strict=True):
            if tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)}, not contiguous fp32 of {shape}")
        if num_columns % columns():
            raise ValueError(f"{num_columns} columns, not a multiple of {columns()}")
        packed = torch.empty_like(x, dtype=torch.bfloat16) if self.by_tiles else x
        self.arguments.set(x=x, low=low, y=out, packed=packed, R=num_columns)
        self.kernel.run(self.arguments.array)


def _shape(weight: Tensor) -> tuple[int, int]:
    rows, columns = getattr(weight, "quant_state", weight).shape
    return int(rows), int(columns)


def _by_tiles(weight: Tensor) -> bool:
    return precision.has_tiles() and _shape(weight)[0] % tile_operands.ROWS == 0


def _kernel(weight: Tensor, transposed: bool = False) -> machine_code.Kernel | None:
    state = getattr(weight, "quant_state", None)
    num_rows, num_columns = _shape(weight)
    if weight.device.type != "cpu" or num_rows % QUAD or num_columns % BLOCK:
        return None
    if state is not None:
        kind = "nf4" if state.quant_type == "nf4" and state.blocksize == BLOCK else ""
    else:
        kind = "bf16" if weight.dtype == torch.bfloat16 and weight.is_contiguous() else ""
    if not kind:
        return None
    return machine_code.compiled((tile_source if _by_tiles(weight) else kernel_source).module(kind, transposed))
