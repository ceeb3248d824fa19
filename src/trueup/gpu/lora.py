"""LoRA layers that read the same input, as one autograd function in the dtype of what flows through.

peft computes the two products of each layer by themselves, keeps their input once more in fp32 where there is no
autocast, and copies the base's output. Here q, k and v, and gate and up, share one product with the matrices A, and add
theirs with B to the base's output in place. The backward dequantizes one weight at a time.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from trueup.layers import active_adapter, dequantize

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # layers of one parent that read the same input


@dataclass(frozen=True)
class Map:
    """A frozen linear layer and the adapter in use: x -> base(x) + scaling (x A^T) B^T (Hu et al. 2021, eq. 3)."""

    base: Any
    a: Tensor  # (r, in), fp32
    b: Tensor  # (out, r), fp32
    scaling: float

    @staticmethod
    def of(module: Any) -> Map | None:
        """None where peft's own forward is needed, or no adapter is in use."""
        name = active_adapter(module)
        if name is None or module.merged or sum(n in module.lora_A for n in module.active_adapters) != 1:
            return None
        if why_not(module, name):
            return None
        return Map(module.base_layer, module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name])


def why_not(module: Any, name: str) -> str:
    """Why adapter `name` of a LoRA layer of peft is left to peft; empty where it is not."""
    if name in module.lora_variant:
        return type(module.lora_variant[name]).__name__.removesuffix("LinearVariant")
    if module.training and getattr(module.lora_dropout[name], "p", 0.0) > 0:
        return "dropout"
    return "" if module.lora_B[name].bias is None else "biases in LoRA"


def install(model: Any) -> tuple[int, int, str]:
    """Take over the LoRA layers of a peft model: (how many, of how many, why the others are left to peft)."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.bnb import Linear4bit
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    groups: dict[tuple[str, Any], list[Any]] = {}
    reasons: dict[str, None] = {}
    for name, module in layers.items():
        parent, _, last = name.rpartition(".")
        reason = _of_kind(module, (Linear, Linear4bit))
        if reason:
            reasons[reason] = None
            continue
        together = next((names for names in TOGETHER if last in names), last)
        groups.setdefault((parent, together), []).append(module)
    for modules in groups.values():
        siblings = Siblings(modules)
        for module in modules:
            if not hasattr(module, "usual_forward"):
                module.usual_forward = module.forward
            module.siblings = siblings
            module.forward = types.MethodType(_forward, module)
    return sum(map(len, groups.values())), len(layers), ", ".join(reasons)


def _of_kind(module: Any, kinds: tuple[Any, ...]) -> str:
    if type(module) not in kinds:
        return type(module).__name__
    name = active_adapter(module)
    return "" if name is None else why_not(module, name)


class Siblings:
    """Layers that read the same input: the first to be asked computes for all, the others take theirs."""

    def __init__(self, modules: list[Any]) -> None:
        self.modules = modules
        self.x: Tensor | None = None
        self.ready: dict[int, Tensor] = {}

    def output(self, module: Any, x: Tensor) -> Tensor | None:
        """What `module` makes of `x`, (..., in) -> (..., out); None where peft's forward must."""
        if x is self.x and id(module) in self.ready:
            found = self.ready.pop(id(module))
        else:
            maps = [Map.of(sibling) for sibling in self.modules]
            if any(m is None for m in maps) or len({m.scaling for m in maps if m is not None}) != 1:
                self.x, self.ready = None, {}
                return None
            outs = outputs(x, [m for m in maps if m is not None])
            self.x, self.ready = x, {id(m): out for m, out in zip(self.modules, outs, strict=True)}
            found = self.ready.pop(id(module))
        if not self.ready:
            self.x = None
        return found


@torch.compiler.disable
def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    plain = not args and all(value is None for value in kwargs.values())
    found = self.siblings.output(self, x) if plain else None
    if found is None:
        found = self.usual_forward(x, *args, **kwargs)
    return found


def outputs(x: Tensor, maps: list[Map]) -> tuple[Tensor, ...]:
    """Each map of x, (..., in) -> (..., out), in the dtype of autocast where there is one, else in that of x."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    matrices = [matrix for m in maps for matrix in (m.a, m.b)]
    found: tuple[Tensor, ...] = Products.apply(x.to(dtype), maps, *matrices)  # type: ignore[no-untyped-call]
    return found


class Products(Function):
    """x, A and B of each map -> their outputs; gradients of x, and of every A and B in fp32.

    Kept for the backward are x, s x A^T, which is narrow, and the matrices in the dtype of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, maps: list[Map], *matrices: Tensor) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        a = _joined(list(matrices[::2])).mul(maps[0].scaling).to(x.dtype)
        b = [matrix.to(x.dtype) for matrix in matrices[1::2]]
        low = rows @ a.T
        ctx.maps, ctx.ranks = maps, [matrix.shape[1] for matrix in b]
        ctx.save_for_backward(x, low, a, *b)
        found = []
        for m, narrow, wide in zip(maps, low.split(ctx.ranks, 1), b, strict=True):
            y = m.base(rows).to(x.dtype)
            found.append(y.addmm_(narrow, wide.T).view(*x.shape[:-1], -1))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, low, a, *b = ctx.saved_tensors
        rows = x.reshape(-1, x.shape[-1])
        flat = [grad.reshape(len(rows), -1).to(x.dtype) for grad in grads]
        through = _joined([grad @ wide for grad, wide in zip(flat, b, strict=True)], 1)
        grad_a = (through.T @ rows).float().mul_(ctx.maps[0].scaling).split(ctx.ranks)
        grad_b = [(grad.T @ narrow).float() for grad, narrow in zip(flat, low.split(ctx.ranks, 1), strict=True)]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = through @ a
            for grad, m in zip(flat, ctx.maps, strict=True):
                grad_x.addmm_(grad, dequantize(m.base.weight, x.dtype))
            grad_x = grad_x.view(x.shape)
        return (grad_x, None, *(g for pair in zip(grad_a, grad_b, strict=True) for g in pair))


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
