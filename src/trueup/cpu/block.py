"""A Llama block over packed tokens as one autograd function: what the backward can recompute is not kept.

Kept of each token: the block's input, rotated queries and keys, values, the attention's output, the residual between
attention and MLP, and the MLP's two inputs to its gate. Norms, SiLU, probabilities and the LoRA's inner products are
computed again. With checkpointing only the input is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from trueup.cpu import attention
from trueup.cpu.grouping import Group
from trueup.cpu.linear import Linear


@dataclass(frozen=True)
class Block:
    """The parts of one decoder layer, with the adapter that is active now."""

    norm_in: Any
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    norm_mlp: Any
    gate: Linear
    up: Linear
    down: Linear
    head_dim: int

    @staticmethod
    def of(layer: Any) -> Block:
        a, m = layer.self_attn, layer.mlp
        return Block(
            norm_in=layer.input_layernorm,
            q=Linear.of(a.q_proj),
            k=Linear.of(a.k_proj),
            v=Linear.of(a.v_proj),
            o=Linear.of(a.o_proj),
            norm_mlp=layer.post_attention_layernorm,
            gate=Linear.of(m.gate_proj),
            up=Linear.of(m.up_proj),
            down=Linear.of(m.down_proj),
            head_dim=a.head_dim,
        )

    def linears(self) -> tuple[Linear, ...]:
        return (self.q, self.k, self.v, self.o, self.gate, self.up, self.down)

    def merged(self) -> Block:
        """The same with bf16 copies of the maps, the adapter in them."""
        maps = ("q", "k", "v", "o", "gate", "up", "down")
        return replace(self, **{name: getattr(self, name).merged() for name in maps})

    def parameters(self) -> list[Tensor | None]:
        """A and B of each map, in the order `BlockFunction` returns their gradients."""
        return [part for linear in self.linears() for part in (linear.a, linear.b)]


@dataclass(frozen=True)
class Rotary:
    """cos and sin of each token's position, (N, 1, D) each; the first half of sin is negative."""

    cos: Tensor
    sin: Tensor

    @staticmethod
    def of(trunk: Any, x: Tensor, positions: Tensor) -> Rotary:
        """The angles of the model's trunk at `positions`, (N,), in the dtype of `x`."""
        cos, sin = (angles[0].unsqueeze(1) for angles in trunk.rotary_emb(x[None], positions[None]))
        first, second = sin.chunk(2, -1)
        return Rotary(cos, torch.cat([-first, second], -1))

    def turn(self, x: Tensor) -> Tensor:
        """Rotary position embedding (Su et al. 2021, eq. 34), Llama's half-split layout: (N, H, D) -> (N, H, D)."""
        return torch.addcmul(x * self.cos, x.roll(x.shape[-1] // 2, -1), self.sin)

    def turn_back(self, grad: Tensor) -> Tensor:
        """The transpose of `turn`, for gradients."""
        return torch.addcmul(grad * self.cos, grad.roll(grad.shape[-1] // 2, -1), self.sin, value=-1)


def run(block: Block, x: Tensor, rotary: Rotary, groups: list[Group], checkpoint: bool) -> Tensor:
    """The block's output for packed tokens, (N, hidden) -> (N, hidden)."""
    y: Tensor = BlockFunction.apply(x, block, rotary, groups, checkpoint, *block.parameters())  # type: ignore[no-untyped-call]
    return y


class BlockFunction(Function):
    """x and the LoRA matrices -> y; gradients for x and every LoRA matrix of the active adapter."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, block: Block, rotary: Rotary, groups: list[Group], checkpoint: bool, *parameters: Tensor
    ) -> Tensor:
        y, kept = forward(block, x, rotary, groups)
        ctx.block, ctx.rotary, ctx.groups = block, rotary, groups
        ctx.save_for_backward(x, *(() if checkpoint else kept))
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
        x, *kept = ctx.saved_tensors
        if not kept:
            _, kept = forward(ctx.block, x, ctx.rotary, ctx.groups)
        grad_x, grads = _backward(ctx.block, grad_y, x, kept, ctx.rotary, ctx.groups, ctx.needs_input_grad[0])
        return (grad_x, None, None, None, None, *grads)


def forward(block: Block, x: Tensor, rotary: Rotary, groups: list[Group]) -> tuple[Tensor, list[Tensor]]:
    """The block's output and what its backward needs; queries, keys and values are at 1, 2 and 3, (N, heads, D)."""
    normed, scale_in = norm(block.norm_in, x)
    heads = (len(x), -1, block.head_dim)
    q = rotary.turn(block.q.forward(normed).view(heads))
    k = rotary.turn(block.k.forward(normed).view(heads))
    v = block.v.forward(normed).view(heads)
    seen = attention.forward(q, k, v, groups)
    middle = block.o.forward(seen.view(len(x), -1)).add_(x)
    normed, scale_mlp = norm(block.norm_mlp, middle)
    gate, up = block.gate.forward(normed), block.up.forward(normed)
    y = block.down.forward(functional.silu(gate).mul_(up)).add_(middle)
    return y, [scale_in, q, k, v, seen, middle, scale_mlp, gate, up]


def _backward(
    block: Block, grad_y: Tensor, x: Tensor, kept: list[Tensor], rotary: Rotary, groups: list[Group], need_x: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    scale_in, q, k, v, seen, middle, scale_mlp, gate, up = kept
    silu = functional.silu(gate)
    grad_product, *down = block.down.backward(grad_y, silu * up)
    grad_up = silu.mul_(grad_product)
    grad_gate = torch.ops.aten.silu_backward(grad_product.mul_(up), gate)
    normed = _apply(block.norm_mlp, middle, scale_mlp)
    through_gate, *gates = block.gate.backward(grad_gate, normed)
    through_up, *ups = block.up.backward(grad_up, normed)
    grad_middle = norm_backward(block.norm_mlp, through_gate.add_(through_up), middle, scale_mlp).add_(grad_y)

    grad_seen, *outs = block.o.backward(grad_middle, seen.view(len(x), -1))
    grad_q, grad_k, grad_v = attention.backward(grad_seen.view_as(seen), q, k, v, seen, groups)
    normed = _apply(block.norm_in, x, scale_in)
    flat = (len(x), -1)
    through_q, *qs = block.q.backward(rotary.turn_back(grad_q).view(flat), normed, need_x)
    through_k, *ks = block.k.backward(rotary.turn_back(grad_k).view(flat), normed, need_x)
    through_v, *vs = block.v.backward(grad_v.view(flat), normed, need_x)
    grads = [*qs, *ks, *vs, *outs, *gates, *ups, *down]
    if not need_x:
        return None, grads
    through = through_q.add_(through_k).add_(through_v)
    return norm_backward(block.norm_in, through, x, scale_in).add_(grad_middle), grads


def norm(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """RMSNorm (Zhang and Sennrich 2019, eq. 4): (N, H) -> (N, H), and 1 / RMS of each token, (N, 1) in fp32."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + module.variance_epsilon)
    return _apply(module, x, scale), scale


def _apply(module: Any, x: Tensor, scale: Tensor) -> Tensor:
    normed: Tensor = (x.float() * scale).to(x.dtype) * module.weight
    return normed


def norm_backward(module: Any, grad: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """The gradient of RMSNorm's input: scale (g - n mean(g n)) with n = x scale and g = grad x weight."""
    normed = x.float() * scale
    weighted = grad.float() * module.weight.float()
    inner = (weighted * normed).mean(-1, keepdim=True)
    through: Tensor = weighted.sub_(normed.mul_(inner)).mul_(scale)
    return through.to(x.dtype)
