"""A frozen linear map, 4-bit or not, with the LoRA terms of the active adapter; forward and backward by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trueup.layers import active_adapter, dequantize


@dataclass(frozen=True)
class Linear:
    """One module of the model as it is now; A (r, in) and B (out, r) are the fp32 masters, None without an adapter."""

    weight: Any  # (out, in), or a bitsandbytes Params4bit
    bias: Tensor | None
    a: Tensor | None
    b: Tensor | None
    scaling: float

    @staticmethod
    def of(module: Any) -> Linear:
        """The map that `module` computes, a plain layer or a peft LoRA layer."""
        base = getattr(module, "base_layer", module)
        name = active_adapter(module)
        if name is None:
            return Linear(base.weight, base.bias, None, None, 0.0)
        return Linear(
            base.weight, base.bias, module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
        )

    def frozen(self, dtype: torch.dtype) -> Tensor:
        """The frozen weight, (out, in) in `dtype`, for a moment; it may be the stored one."""
        return dequantize(self.weight, dtype)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight that many tokens are run through.

        In fp32 the LoRA terms are added to it, which costs less than running every token through them; bf16 would round
        them away.
        """
        weight = self.frozen(dtype)
        if dtype == torch.float32 and self.a is not None and self.b is not None:
            if weight is self.weight:
                return torch.addmm(weight, self.b.detach(), self.a.detach(), alpha=self.scaling)
            weight.addmm_(self.b.detach(), self.a.detach(), alpha=self.scaling)
        return weight

    def merged(self) -> Linear:
        """The same map with its LoRA terms in a bf16 copy of the weight."""
        return Linear(self.dense(torch.float32).to(torch.bfloat16), self.bias, None, None, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out): x W^T + scaling (x A^T) B^T (Hu et al. 2021, eq. 3)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        y: Tensor = functional.linear(x, self.dense(x.dtype), bias)
        if x.dtype != torch.float32 and self.a is not None and self.b is not None:
            y.addmm_(x @ self.a.detach().to(x.dtype).T, self.b.detach().to(x.dtype).T, alpha=self.scaling)
        return y

    def backward(self, grad: Tensor, x: Tensor, need_x: bool = True) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of x, A and B from that of the output, (N, out); the last two in fp32, None without an adapter.

        Without `need_x` the first is empty.
        """
        grad_x = grad @ self.dense(grad.dtype) if need_x else grad.new_empty(0)
        if self.a is None or self.b is None:
            return grad_x, None, None
        low, high = self.a.detach().to(x.dtype), self.b.detach().to(x.dtype)
        through = (grad @ high).mul_(self.scaling)
        if need_x and grad.dtype != torch.float32:
            grad_x.addmm_(through, low)
        grad_a = (through.T @ x).float()
        grad_b = (grad.T @ (x @ low.T)).float().mul_(self.scaling)
        return grad_x, grad_a, grad_b
