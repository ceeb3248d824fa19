"""What makes training bearable on a CPU, in one place, and off on a GPU.

peft computes LoRA in fp32 beside a bf16 base, and autograd keeps what it does not need. Here a 4-bit linear map and its
LoRA terms are one autograd function in bf16; the fp32 masters stay, and gradients arrive in fp32.
"""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import torch
from torch.autograd import Function


class LoraLinear4bit(Function):
    """y = x W^T + (x A^T) B^T scaling (Hu et al. 2021, eq. 3), with W dequantized when needed and never kept.

    x is (..., in) in the compute dtype, A (r, in) and B (out, r) in fp32. Gradients reach x, A and B.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, a: Any, b: Any, weight: Any, scaling: float) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        low, high = a.to(x.dtype), b.to(x.dtype)
        inner = rows @ low.T
        y = rows @ _dequantize(weight).T
        y.addmm_(inner, high.T, alpha=scaling)
        ctx.save_for_backward(rows, inner, low, high)
        ctx.weight, ctx.scaling, ctx.shape = weight, scaling, x.shape
        return y.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        rows, inner, low, high = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        through = (grad @ high) * ctx.scaling
        grad_a = (through.T @ rows).float()
        grad_b = (grad.T @ inner).float() * ctx.scaling
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _dequantize(ctx.weight)
            grad_x.addmm_(through, low)
            grad_x = grad_x.reshape(ctx.shape)
        return grad_x, grad_a, grad_b, None, None


def _dequantize(weight: Any) -> Any:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def install(model: Any) -> int:
    """Speed up every 4-bit LoRA layer of a model on the CPU; return how many. Others, and GPUs, are left alone."""
    if next(model.parameters()).device.type != "cpu":
        return 0
    keep_memory()
    model.get_base_model().set_attn_implementation("eager")  # the CPU flash kernel's backward is slow on short rows
    count = 0
    for module in model.modules():
        if hasattr(module, "lora_A") and hasattr(getattr(module.base_layer, "weight", None), "quant_state"):
            _speed_up(module)
            count += 1
    return count


def _speed_up(module: Any) -> None:
    usual = module.forward

    def forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        active = [name for name in self.active_adapters if name in self.lora_A]
        special = args or kwargs or self.base_layer.bias is not None or len(active) != 1 or self.disable_adapters
        if special or self.use_dora[active[0]] or not isinstance(self.lora_dropout[active[0]], torch.nn.Identity):
            return usual(x, *args, **kwargs)
        name = active[0]
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return LoraLinear4bit.apply(x, a, b, self.base_layer.weight, self.scaling[name])  # type: ignore[no-untyped-call]

    module.forward = types.MethodType(forward, module)


def keep_memory() -> None:
    """Keep freed memory in the process: giving each large tensor back to Linux and faulting it in anew costs half."""
    if sys.platform == "linux":
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
