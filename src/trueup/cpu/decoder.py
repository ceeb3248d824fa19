"""Decoding a Llama-shaped policy on a CPU without `generate`'s overhead.

The base stays 4-bit in memory: each layer is decoded when it is used, once per step for all rows. A merged decoder
keeps a bf16 copy of base plus adapter instead, and counts its bytes. What prompts begin with is computed once,
and so is a prompt that is completed several times; the place of a finished row goes to the next prompt.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trueup.cpu import block, heap, kernels, precision, trunk
from trueup.cpu.attention_step import Step, columns
from trueup.cpu.grouping import group
from trueup.cpu.norm import Norm
from trueup.cpu.packing import pack
from trueup.cpu.projection import Head, Projection
from trueup.decoding.batching import Completion, complete

Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (rows, K, width, D)


def fits(model: Any) -> bool:
    """True where this decoder knows the architecture and the adapter; else `generate` is right."""
    whole = _whole(model)
    return trunk.knows(whole) and trunk.plain(whole.base_model)


class Engine:
    """A decoder that is made when it is first asked to generate."""

    def __init__(self, model: Any, *, merged: bool = False) -> None:
        self.model, self.merged = model, merged

    @functools.cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.model, merged=self.merged)

    @property
    def num_bytes(self) -> int:
        """Bytes of the bf16 copy that a merged decoder holds beside the model."""
        if not self.merged:
            return 0
        maps = [m for layer in _whole(self.model).base_model.layers for m in block.Block.of(layer).linears()]
        shapes = [getattr(linear.weight, "quant_state", linear.weight).shape for linear in maps]
        return sum(int(rows) * int(columns) for rows, columns in shapes) * torch.bfloat16.itemsize

    def generate(self, prompts: list[list[int]], **options: Any) -> list[Completion]:
        """`batching.complete`, by the decoder."""
        return complete(self.decoder, prompts, **options)


def _whole(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def flow_dtype(blocks: list[block.Block]) -> torch.dtype:
    """What flows from layer to layer, one token per row: fp32 where kernels read the weights, else as in training."""
    by_kernels = all(kernels.fits(linear.weight) for b in blocks for linear in b.linears())
    return torch.bfloat16 if precision.has_bf16() and not by_kernels else torch.float32


@dataclass
class Layer:
    """One decoder layer, for many tokens at first (`block`) and then one per row."""

    block: block.Block
    norm_in: Norm
    qkv: Projection
    out: Projection
    norm_mlp: Norm
    gate_up: Projection
    down: Projection


class Decoder:
    """The active adapter of a Llama-shaped model, ready to decode."""

    device = torch.device("cpu")

    def __init__(self, model: Any, *, merged: bool = False) -> None:
        causal = _whole(model)
        heap.keep()
        self.trunk = causal.base_model
        blocks = [block.Block.of(layer).merged() if merged else block.Block.of(layer) for layer in self.trunk.layers]
        self.dtype = flow_dtype(blocks)
        self.cached = self.trunk.embed_tokens(torch.zeros(1, dtype=torch.long)).dtype  # as the prompts' forward has it
        self.head, self.norm = Head(causal.get_output_embeddings().weight, self.dtype), Norm(self.trunk.norm)
        self.num_kv_heads, self.head_dim = causal.config.num_key_value_heads, blocks[0].head_dim
        self.layers = []
        for b in blocks:
            together = ([b.q, b.k, b.v], [b.o], [b.gate, b.up], [b.down])
            qkv, out, gate_up, down = (Projection(maps, self.dtype) for maps in together)
            self.layers.append(Layer(b, Norm(b.norm_in), qkv, out, Norm(b.norm_mlp), gate_up, down))

    def new_cache(self, num_rows: int, width: int) -> Cache:
        """Zero keys and values, each (rows, K, width, D), of every layer; as training computes them."""
        shape = (num_rows, self.num_kv_heads, width, self.head_dim)
        return [(torch.zeros(shape, dtype=self.cached), torch.zeros(shape, dtype=self.cached)) for _ in self.layers]

    def narrow(self, cache: Cache, alive: Tensor) -> Cache:
        """The cache of these rows alone."""
        return [(keys[alive], values[alive]) for keys, values in cache]

    def admit(self, prompts: list[list[int]], places: Tensor, cache: Cache) -> Tensor:
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
        return self.head(columns(self.trunk.norm(x[last])).to(self.dtype))[: len(last)]

    def step(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Logits after one more token per row, which stands at its row's `positions`; (rows, vocabulary) in fp32."""
        x = self.trunk.embed_tokens(tokens).to(self.dtype)
        attend = Step(block.Rotary.of(self.trunk, x, positions), positions, self.num_kv_heads, self.cached)
        y = columns(x)
        x = torch.zeros_like(y)
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            y = layer.out(attend(layer.qkv(layer.norm_in(x, y)), keys, values))
            gate, up = layer.gate_up(layer.norm_mlp(x, y)).chunk(2)
            y = layer.down(functional.silu(gate).mul_(up))
        return self.head(self.norm(x, y))[: len(tokens)]
