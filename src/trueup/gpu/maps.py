"""Linear maps that read the same input, in few launches: merged in 16 bits, or as stored with LoRA beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Frozen:
    """A frozen weight, 4-bit or not, and its bias."""

    weight: Any  # (out, in), or a bitsandbytes Params4bit
    bias: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)"""
        rows, columns = getattr(self.weight, "quant_state", self.weight).shape
        return int(rows), int(columns)

    def dense(self) -> Tensor:
        """The weight in fp32, a copy of its own."""
        state = getattr(self.weight, "quant_state", None)
        if state is None:
            return self.weight.detach().float().clone()  # type: ignore[no-any-return]
        from bitsandbytes.functional import dequantize_blockwise

        scales = state.absmax.float()
        if state.nested:
            scales = (dequantize_blockwise(state.absmax, state.state2) + state.offset).float()
        dense: Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            self.weight.data, scales, state.blocksize, state.quant_type, state.shape, torch.float32
        )
        return dense

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out), in one launch."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        state = getattr(self.weight, "quant_state", None)
        if state is None:
            return functional.linear(x, self.weight.to(x.dtype), bias)
        nested: dict[str, Any] = {}
        if state.nested:
            nested = {"absmax_8bit": state.absmax, "absmax_code": state.state2.code, "absmax_offset": state.offset}
        y: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
            x,
            self.weight.data.view(-1, 1),
            state.shape,
            state.state2.absmax if state.nested else state.absmax,
            state.blocksize,
            state.quant_type,
            bias=bias,
            **nested,
        )
        return y


@dataclass(frozen=True)
class Lora:
    """A (r, in) and B (out, r) of the active adapter, fp32 as they are trained."""

    a: Tensor
    b: Tensor
    scaling: float

    @staticmethod
    def of(module: Any) -> Lora | None:
        """The active adapter of a peft layer; None for a plain layer, or where no adapter of it is in use."""
        if not hasattr(module, "lora_A") or module.disable_adapters:
            return None
        name = next((name for name in module.active_adapters if name in module.lora_A), None)
        if name is None:
            return None
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        return Lora(a.detach(), b.detach(), module.scaling[name])


class Merged:
    """Maps beside each other as one matrix in `dtype`, each with its adapter added in fp32 and rounded once."""

    def __init__(self, modules: list[Any], dtype: torch.dtype) -> None:
        parts, biases = [], []
        for module in modules:
            base, lora = getattr(module, "base_layer", module), Lora.of(module)
            dense = Frozen(base.weight, base.bias).dense()
            if lora is not None:
                dense.addmm_(lora.b.float(), lora.a.float(), alpha=lora.scaling)
            parts.append(dense.to(dtype))
            biases.append(base.bias)
        self.weight = parts[0] if len(parts) == 1 else torch.cat(parts)  # (sum of out, in)
        self.bias = _beside(biases, [len(part) for part in parts], dtype)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, in) -> (N, sum of out), plus the residual."""
        if residual is None:
            return functional.linear(x, self.weight, self.bias)
        y = torch.addmm(residual, x, self.weight.T)
        return y if self.bias is None else y.add_(self.bias)


class Stored:
    """Maps beside each other with their weights as they are stored; the adapters' products in `dtype`, stacked."""

    def __init__(self, modules: list[Any], dtype: torch.dtype) -> None:
        bases = [getattr(module, "base_layer", module) for module in modules]
        self.parts = [Frozen(base.weight, base.bias) for base in bases]
        loras = [Lora.of(module) for module in modules]
        found = [lora for lora in loras if lora is not None]
        self.a = torch.cat([lora.a for lora in found]).to(dtype) if found else None  # (sum of r, in)
        self.b: Tensor | None = None  # (sum of out, sum of r), a block for each map
        if self.a is not None:
            sizes = [part.shape[0] for part in self.parts]
            self.b = torch.zeros(sum(sizes), len(self.a), dtype=dtype, device=self.a.device)
            row = column = 0
            for size, lora in zip(sizes, loras, strict=True):
                if lora is not None:
                    rank = len(lora.a)
                    self.b[row : row + size, column : column + rank] = lora.b * lora.scaling
                    column += rank
                row += size

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, in) -> (N, sum of out), plus the residual: x W^T + s (x A^T) B^T (Hu et al. 2021, eq. 3)."""
        y = self.parts[0](x) if len(self.parts) == 1 else torch.cat([part(x) for part in self.parts], -1)
        if self.a is not None and self.b is not None:
            y.addmm_(x @ self.a.T, self.b.T)
        return y if residual is None else y.add_(residual)


def _beside(biases: list[Tensor | None], sizes: list[int], dtype: torch.dtype) -> Tensor | None:
    """The biases of maps beside each other; zeros for those without one, None where no map has one."""
    known = next((bias for bias in biases if bias is not None), None)
    if known is None:
        return None
    return torch.cat(
        [
            torch.zeros(size, device=known.device, dtype=dtype) if bias is None else bias.detach().to(dtype)
            for bias, size in zip(biases, sizes, strict=True)
        ]
    )
