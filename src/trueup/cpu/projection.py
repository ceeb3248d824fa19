"""Linear maps of the policy at one token per row: rows of the batch are columns here."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trueup.cpu import kernels, precision, tile_operands
from trueup.cpu.linear import Linear
from trueup.layers import dequantize


class Projection:
    """Linear maps that read the same input, (in, rows) -> (outs, rows), their outputs one below the other.

    With few rows, W x is twice as fast as x W^T, and a kernel that reads W as it is stored faster again.
    """

    def __init__(self, linears: list[Linear], dtype: torch.dtype) -> None:
        self.dtype = dtype  # of what flows through
        self.weights = [m.weight for m in linears]
        self.sizes = [getattr(weight, "quant_state", weight).shape[0] for weight in self.weights]
        self.bias = None
        if linears[0].bias is not None:
            self.bias = torch.cat([m.bias.to(self.dtype) for m in linears if m.bias is not None])[:, None]
        lows = [m.a.detach() for m in linears if m.a is not None]
        self.low = Low(torch.cat(lows).to(self.dtype)) if lows else None
        self.highs = [None if m.b is None else (m.b.detach() * m.scaling).to(self.dtype) for m in linears]
        self.ranks = [0 if high is None else high.shape[1] for high in self.highs]
        self.products = None
        if self.dtype == torch.float32 and all(map(kernels.fits, self.weights)):
            pairs = zip(self.weights, self.highs, strict=True)
            self.products = [kernels.Product(weight, high) for weight, high in pairs]

    def __call__(self, x: Tensor) -> Tensor:
        y = x.new_empty(sum(self.sizes), x.shape[1])
        outs = torch.split(y, self.sizes)
        lows = torch.split(x[:0] if self.low is None else self.low(x), self.ranks)
        if self.products is not None:
            for product, part, out in zip(self.products, lows, outs, strict=True):
                product(x, part, out)
        else:
            for weight, high, part, out in zip(self.weights, self.highs, lows, outs, strict=True):
                torch.mm(dequantize(weight, self.dtype), x, out=out)
                if high is not None:
                    out.addmm_(high, part)
        return y if self.bias is None else y.add_(self.bias)


class Low:
    """What LoRA's first matrices make of the input, (in, rows) -> (ranks, rows)."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.product = matrix, None
        if matrix.dtype == torch.float32 and precision.has_tiles():
            whole = functional.pad(matrix, (0, 0, 0, -len(matrix) % tile_operands.ROWS)).to(torch.bfloat16)
            self.product = kernels.Product(whole) if kernels.fits(whole) else None

    def __call__(self, x: Tensor) -> Tensor:
        if self.product is None:
            return self.matrix @ x
        low = x.new_empty(self.product.shape[0], x.shape[1])
        self.product(x, x[:0], low)
        return low[: len(self.matrix)]


class Head:
    """The output layer, (hidden, rows) -> logits (rows, vocabulary) in fp32."""

    BLOCK = 4096  # rows of the matrix in the compute dtype at once: they stay in the processor's cache

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight = weight
        self.product = None
        if dtype == torch.float32 and kernels.fits(weight):
            self.product = kernels.Product(weight, transposed=True)

    def __call__(self, x: Tensor) -> Tensor:
        if self.product is not None:
            logits = x.new_empty(x.shape[1], len(self.weight))
            self.product(x, x[:0], logits)
            return logits
        logits = x.new_empty(len(self.weight), x.shape[1])
        for rows, out in zip(torch.split(self.weight, self.BLOCK), torch.split(logits, self.BLOCK), strict=True):
            torch.mm(rows.to(x.dtype), x, out=out)
        return logits.T.float().contiguous()
