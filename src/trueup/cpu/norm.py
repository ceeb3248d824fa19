"""The residual stream and its norms at one token per row: rows of the batch are columns here."""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor

from trueup.cpu import machine_code, norm_source


class Norm:
    """RMSNorm (Zhang and Sennrich 2019, eq. 4) of what a layer adds to the residual stream."""

    def __init__(self, module: Any) -> None:
        self.weight, self.epsilon = module.weight.detach(), float(module.variance_epsilon)
        self.kernel = machine_code.compiled(norm_source.MODULE)
        (bits,) = struct.unpack("<q", struct.pack("<d", self.epsilon))
        self.arguments = machine_code.Arguments(
            norm_source.ARGUMENTS, weight=self.weight.float().contiguous(), n=len(self.weight), epsilon=bits
        )

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Adds y to x in place; the norm of each column of the sum; all (hidden, rows), rows a multiple of 8."""
        if self.kernel is None or x.dtype != torch.float32:
            return self._by_torch(x.add_(y))
        out = torch.empty_like(x)
        whole = (x, y, out)
        if x.shape != y.shape or len(x) != len(self.weight) or x.shape[1] % 8 or not all(map(_fp32, whole)):
            raise ValueError(f"{tuple(x.shape)} and {tuple(y.shape)}: not contiguous fp32 of {len(self.weight)} rows")
        self.arguments.set(x=x, y=y, out=out, columns=x.shape[1])
        self.kernel.run(self.arguments.array)
        return out

    def _by_torch(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = wide.new_full((1, len(x)), 1 / len(x)) @ wide.square()  # three times as fast as a mean over columns
        scale.add_(self.epsilon).rsqrt_()
        return (wide * scale).to(x.dtype).mul_(self.weight[:, None])


def _fp32(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_contiguous()
