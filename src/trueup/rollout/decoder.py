"""Decoding a Llama-shaped policy on a CPU without `generate`'s overhead.

The base stays 4-bit in memory: each layer is dequantized when it is used, once a step for the whole batch. A merged
decoder keeps a dense copy of base plus adapter instead, and counts its bytes. What prompts begin with is computed once,
and so is a prompt that is completed several times; the place of a finished row goes to the next prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trueup.cpu import block, trunk
from trueup.cpu.grouping import group
from trueup.cpu.linear import Linear, dequantize
from trueup.cpu.packing import pack
from trueup.models.base import compute_dtype
from trueup.rollout.generate import Generated
from trueup.rollout.sampler import draw

VOCABULARY_BLOCK = 4096  # rows of the output matrix in the compute dtype at once: they stay in the processor's cache
LEAVING = 0.125  # share of rows that are done before others take their place, or the cache is copied without them
Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (rows, K, width, D)


def fits(model: Any) -> bool:
    """True where this decoder knows the architecture, the adapter and the device; else `generate` is right."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return bool(whole.config.model_type in trunk.KNOWN and model.device.type == "cpu" and trunk.plain(whole.base_model))


def merged_bytes(model: Any) -> int:
    """Bytes of the dense copy that a merged decoder of `model` holds beside it."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    linears = [linear for layer in causal.model.layers for linear in block.Block.of(layer).linears()]
    shapes = [getattr(linear.weight, "quant_state", linear.weight).shape for linear in linears]
    num_weights = sum(int(rows) * int(columns) for rows, columns in shapes)
    return num_weights * int(compute_dtype().itemsize)


class Projection:
    """Linear maps that read the same input, (in, rows) -> (outs, rows), their outputs one below the other.

    Rows are columns here: with few of them, W x is twice as fast as x W^T.
    """

    def __init__(self, linears: list[Linear], dtype: torch.dtype, merged: bool) -> None:
        self.dtype = dtype
        self.weights = [m.weight for m in linears]
        self.sizes = [getattr(weight, "quant_state", weight).shape[0] for weight in self.weights]
        self.bias = None
        if linears[0].bias is not None:
            self.bias = torch.cat([m.bias.to(dtype) for m in linears if m.bias is not None])[:, None]
        self.copy = torch.cat([_merged(m).to(dtype) for m in linears]) if merged else None
        self.low = self.high = None
        if not merged and linears[0].a is not None:
            pairs = [(m.a.detach(), m.b.detach() * m.scaling) for m in linears if m.a is not None and m.b is not None]
            self.low = torch.cat([a for a, _ in pairs]).to(dtype)
            self.high = torch.block_diag(*[b for _, b in pairs]).to(dtype)  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        if self.copy is not None:
            y = self.copy @ x
        else:
            y = x.new_empty(sum(self.sizes), x.shape[1])
            for weight, part in zip(self.weights, torch.split(y, self.sizes), strict=True):
                torch.mm(dequantize(weight, self.dtype), x, out=part)
        if self.bias is not None:
            y += self.bias
        if self.low is not None and self.high is not None:
            y.addmm_(self.high, self.low @ x)
        return y


def _merged(linear: Linear) -> Tensor:
    weight = linear.frozen(torch.float32)
    if linear.a is None or linear.b is None:
        return weight
    return torch.addmm(weight, linear.b.detach(), linear.a.detach(), alpha=linear.scaling)


@dataclass
class Layer:
    """One decoder layer, for many tokens at first (`block`) and then one a row."""

    block: block.Block
    qkv: Projection
    out: Projection
    gate_up: Projection
    down: Projection


class Decoder:
    """The active adapter of a Llama-shaped model, ready to decode."""

    def __init__(self, model: Any, *, merged: bool = False) -> None:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.trunk, self.head = causal.model, causal.lm_head
        self.dtype = compute_dtype()
        self.num_heads, self.num_kv_heads = causal.config.num_attention_heads, causal.config.num_key_value_heads
        self.layers = []
        for module in self.trunk.layers:
            b = block.Block.of(module)
            groups = ([b.q, b.k, b.v], [b.o], [b.gate, b.up], [b.down])
            self.layers.append(Layer(b, *(Projection(group, self.dtype, merged) for group in groups)))
        self.head_dim = self.layers[0].block.head_dim

    @torch.no_grad()
    def generate(
        self,
        prompts: list[list[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        eos_id: int,
        seed: int,
        batch_size: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Generated]:
        """A completion of each prompt, in the order given; when rows of the batch are done, others take their place."""
        # the random numbers are each prompt's own: who is decoded beside it changes none
        uniform = torch.rand(len(prompts), max_new_tokens, generator=torch.Generator().manual_seed(seed))
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        width = int(lengths.max()) + max_new_tokens
        done = [Generated([], []) for _ in prompts]
        rows = torch.arange(min(batch_size, len(prompts)))  # which prompt is in each place of the batch
        waiting = len(rows)  # the first prompt that has no place yet
        ages = torch.zeros_like(rows)  # tokens drawn for each
        alive = torch.ones_like(rows, dtype=torch.bool)
        cache = self._empty_cache(len(rows), width)
        logits = self._admit([prompts[row] for row in rows], rows, cache)
        while True:
            tokens = draw(logits, uniform[rows, ages.clamp(max=max_new_tokens - 1)], temperature, top_p)
            scaled = logits if temperature in (0, 1) else logits / temperature
            logps = scaled.gather(1, tokens[:, None])[:, 0] - scaled.logsumexp(-1)
            drawn = zip(rows.tolist(), tokens.tolist(), logps.tolist(), alive.tolist(), strict=True)
            for row, token, logp, going in drawn:
                if going:
                    done[row].ids.append(token)
                    done[row].logps.append(logp)
            ages += alive
            going_on = alive & (tokens != eos_id) & (ages < max_new_tokens)
            progress(int((alive & ~going_on).sum()))
            alive = going_on
            free, all_placed = (~alive).nonzero()[:, 0], waiting == len(prompts)
            if all_placed and not alive.any():
                return done
            if all_placed and len(free) > len(rows) * LEAVING:
                cache = [(keys[alive], values[alive]) for keys, values in cache]
                rows, tokens, ages, alive = rows[alive], tokens[alive], ages[alive], alive[alive]
            if alive.any():
                logits = self._step(tokens, lengths[rows] + ages - 1, cache)
            if not all_placed and len(free) >= len(rows) * LEAVING:
                free = free[: len(prompts) - waiting]
                rows[free] = torch.arange(waiting, waiting + len(free))
                waiting += len(free)
                ages[free], alive[free] = 0, True
                logits[free] = self._admit([prompts[row] for row in rows[free]], free, cache)

    def _empty_cache(self, num_rows: int, width: int) -> Cache:
        """Zero keys and values, each (rows, K, width, D), of every layer."""
        shape = (num_rows, self.num_kv_heads, width, self.head_dim)
        return [(torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype)) for _ in self.layers]

    def _admit(self, prompts: list[list[int]], places: Tensor, cache: Cache) -> Tensor:
        """Put prompts into these places of the batch; logits after each, (prompts, vocabulary) in fp32."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        width = int(lengths.max())
        real = torch.arange(width) < lengths[:, None]
        packed = pack(torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts]), real)
        groups = group(packed.nodes)
        x = self.trunk.embed_tokens(packed.ids)
        rotary = block.Rotary.of(self.trunk, x, packed.positions)
        for layer, pair in zip(self.layers, cache, strict=True):
            x, kept = block.forward(layer.block, x, rotary, groups)
            for whole, new in zip(pair, (kept[2], kept[3]), strict=True):  # keys, values: (N, K, D) of packed tokens
                whole[places, :, :width] = new[packed.place].transpose(1, 2)
        last = packed.place[torch.arange(len(prompts)), lengths - 1]
        return self._logits(x[last])

    def _step(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Logits after one more token a row, which stands at its row's `positions`; (rows, vocabulary) in fp32."""
        num_rows, end = len(tokens), int(positions.max()) + 1
        x = self.trunk.embed_tokens(tokens)
        rotary = block.Rotary.of(self.trunk, x, positions)
        x = x.T.contiguous()
        rows = torch.arange(num_rows)
        unseen = torch.zeros(num_rows, end, dtype=self.dtype)
        unseen.masked_fill_(torch.arange(end) > positions[:, None], -torch.inf)
        unseen = unseen.repeat_interleave(self.num_kv_heads, 0)[:, None]
        turned = self.num_heads + self.num_kv_heads
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            heads = layer.qkv(_norm(layer.block.norm_in, x)).T.reshape(num_rows, -1, self.head_dim)
            q, k = torch.split(rotary.turn(heads[:, :turned]), [self.num_heads, self.num_kv_heads], 1)
            keys[rows, :, positions], values[rows, :, positions] = k, heads[:, turned:]
            seen_keys, seen_values = keys.flatten(0, 1)[:, :end], values.flatten(0, 1)[:, :end]
            seen = _attention(q.reshape(len(unseen), -1, self.head_dim), seen_keys, seen_values, unseen)
            x = layer.out(seen.view(num_rows, -1).T).add_(x)
            gate, up = layer.gate_up(_norm(layer.block.norm_mlp, x)).chunk(2)
            x = layer.down(functional.silu(gate).mul_(up)).add_(x)
        return self._logits(x.T)

    def _logits(self, x: Tensor) -> Tensor:
        x = self.trunk.norm(x)
        if self.head.weight.dtype == x.dtype:
            return functional.linear(x, self.head.weight).float()
        logits = x.new_empty(len(self.head.weight), len(x))
        parts = (torch.split(whole, VOCABULARY_BLOCK) for whole in (self.head.weight, logits))
        for rows, part in zip(*parts, strict=True):
            torch.mm(rows.to(x.dtype), x.T, out=part)
        return logits.T.contiguous()


def _attention(q: Tensor, keys: Tensor, values: Tensor, unseen: Tensor) -> Tensor:
    """(rows x K, H / K, D) -> the same: attention to keys and values, (rows x K, end, D); `unseen` is 0 or -inf."""
    scores = torch.baddbmm(unseen, q, keys.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return torch.bmm(torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype), values)


def _norm(module: Any, x: Tensor) -> Tensor:
    """RMSNorm of each column, (hidden, rows) -> (hidden, rows)."""
    wide = x.float()
    scale = wide.new_ones(1, len(x)) @ wide.square()  # a product is three times as fast as a sum over columns
    scale.div_(len(x)).add_(module.variance_epsilon).rsqrt_()
    return (wide * scale).to(x.dtype).mul_(module.weight[:, None])
