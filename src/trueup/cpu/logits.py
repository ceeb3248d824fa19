"""Products of hidden states with rows of an output layer, summed in fp32 where the processor multiplies tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trueup.cpu import kernels, precision


def products(hidden: Tensor) -> Callable[[Tensor], Tensor]:
    """What multiplies hidden states, (N, H), by rows of an output layer: (V', H) -> (N, V') in fp32.

    bf16 leaves a logit of 20 uncertain by 0.06; a kernel that multiplies bf16 tiles keeps its sums in fp32.
    """
    if hidden.dtype != torch.bfloat16 or not precision.has_tiles():
        return lambda rows: (hidden @ rows.T).float()
    missing = kernels.padded(len(hidden)) - len(hidden)
    columns = functional.pad(hidden.float().T, (0, missing)).contiguous()

    def multiply(rows: Tensor) -> Tensor:
        if not kernels.fits(rows):
            return (hidden @ rows.T).float()
        out = columns.new_empty(columns.shape[1], len(rows))
        kernels.Product(rows, transposed=True)(columns, columns[:0], out)
        return out[: len(hidden)]

    return multiply
