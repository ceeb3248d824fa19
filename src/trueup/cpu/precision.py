"""Compute in fp32 where the processor has no bf16 arithmetic: there a bf16 matmul takes eight times as long.

Weights stay as they are stored, 4-bit and bf16; only what flows through them is fp32.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def has_bf16() -> bool:
    """True where the processor multiplies bf16 matrices (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_tiles() -> bool:
    """True where the processor multiplies tiles of bf16 (AMX), and Linux lets this process."""
    return has_bf16() and _tiles_are_allowed()


@functools.cache
def _tiles_are_allowed() -> bool:
    return bool(torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())


def flow_in_fp32(model: Any) -> None:
    """Make hidden states of a bf16 or 4-bit model fp32, without storing its large matrices in fp32.

    4-bit layers dequantize to fp32; the embedding's rows are cast as they are read, and a linear layer that is not
    4-bit is cast when it is used; what other modules hold themselves (norms and their biases, a few kilobytes) becomes
    fp32.
    """
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            state.dtype = torch.float32
            module.compute_dtype = torch.float32
        elif isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda module, inputs, output: output.float())
        elif isinstance(module, torch.nn.Linear):
            setattr(module, "forward", types.MethodType(_cast_linear, module))  # noqa: B010 - no method to mypy
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


def _cast_linear(self: torch.nn.Linear, x: Tensor) -> Tensor:
    bias = None if self.bias is None else self.bias.to(x.dtype)
    return functional.linear(x, self.weight.to(x.dtype), bias)
