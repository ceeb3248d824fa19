"""Decoding a Llama-shaped policy on a GPU, where launching kernels is what takes the time.

A layer takes about 20 launches a step with merged weights, 30 with 4-bit ones, where transformers and peft take 115:
maps that read the same input are one product, the residual is added by the product, norms are one kernel, queries and
keys are turned together, and the heads that share keys are attended to as if they were several queries.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trueup.gpu.graphs import Steps
from trueup.gpu.llama import window
from trueup.gpu.maps import Merged, Stored

PREFILL_TOKENS = 8192  # of prompts in one forward, padding included
WIDTH = 64  # the cache's width is a multiple of it: kernels want their mask aligned


@dataclass
class Layer:
    """One decoder layer's parts."""

    norm_in: Any
    qkv: Merged | Stored
    norm_qk: tuple[Any, Any] | None
    out: Merged | Stored
    norm_mlp: Any
    gate_up: Merged | Stored
    down: Merged | Stored
    activation: Any
    window: int | None  # tokens that attention sees, its own included; None: all
    scaling: float


@dataclass
class Cache:
    """Keys and values of the batch, (layers, 2, rows, width, K, D), the angles of each position, and the step on it."""

    tensor: Tensor
    cos: Tensor  # (width, D)
    sin: Tensor  # (width, D); the first half negative
    steps: Steps
    held: dict[tuple[int, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)  # a prompt: cache and logits


class Decoder:
    """The active adapter of a Llama-shaped model, ready to decode; `output` makes logits of normed hidden states.

    `merged`: on a copy of base plus adapter in `dtype`, else on the weights as they are stored.
    """

    def __init__(self, whole: Any, output: Any, *, merged: bool, graphs: bool = True) -> None:
        self.trunk, self.output, self.graphs = whole.base_model, output, graphs
        embedding = self.trunk.embed_tokens.weight
        self.dtype, self.device = embedding.dtype, embedding.device
        first = self.trunk.layers[0].self_attn
        self.head_dim = int(first.head_dim)
        self.config = whole.config
        self.num_kv_heads = int(self.config.num_key_value_heads)
        self.num_heads = int(self.config.num_attention_heads)
        self.num_prefills = 0  # prompts that went through the model
        self.no_graphs = "" if graphs else "they are turned off"  # why steps are not replayed
        maps = Merged if merged else Stored
        with torch.no_grad():
            self.layers = [self._layer(layer, maps) for layer in self.trunk.layers]

    def _layer(self, layer: Any, maps: Any) -> Layer:
        a, m = layer.self_attn, layer.mlp
        return Layer(
            norm_in=layer.input_layernorm,
            qkv=maps([a.q_proj, a.k_proj, a.v_proj], self.dtype),
            norm_qk=(a.q_norm, a.k_norm) if hasattr(a, "q_norm") else None,
            out=maps([a.o_proj], self.dtype),
            norm_mlp=layer.post_attention_layernorm,
            gate_up=maps([m.gate_proj, m.up_proj], self.dtype),
            down=maps([m.down_proj], self.dtype),
            activation=m.act_fn,
            window=window(self.config, a),
            scaling=float(a.scaling),
        )

    def new_cache(self, num_rows: int, width: int) -> Cache:
        """A cache of zeros for so many rows."""
        width = -(-width // WIDTH) * WIDTH
        shape = (len(self.layers), 2, num_rows, width, self.num_kv_heads, self.head_dim)
        tensor = torch.zeros(shape, dtype=self.dtype, device=self.device)
        positions = torch.arange(width, device=self.device)
        cos, sin = (angles[0] for angles in self.trunk.rotary_emb(tensor[0, 0, 0, :1, 0][None], positions[None]))
        first, second = sin.chunk(2, -1)
        sin = torch.cat([-first, second], -1)
        cos, sin = cos.to(self.dtype), sin.to(self.dtype)
        step = functools.partial(self._step, cached=tensor, angles=(cos, sin))  # no cycle: a cache is freed at once
        return Cache(tensor, cos, sin, Steps(step, off=self.no_graphs))

    def narrow(self, cache: Cache, alive: Tensor) -> None:
        """None: the kernels of a captured step have a fixed number of rows, and fewer rows take no less time."""
        return None

    def admit(self, prompts: list[list[int]], places: Tensor, cache: Cache) -> Tensor:
        """Put prompts into these places, each distinct one computed once; logits after each, (prompts, V) in fp32."""
        keys = [tuple(prompt) for prompt in prompts]
        where: dict[tuple[int, ...], list[int]] = {}
        for place, key in zip(places.tolist(), keys, strict=True):
            where.setdefault(key, []).append(place)
        held, last = cache.held, keys[-1]  # copies of a prompt are neighbours: only the last can come once more
        logits: dict[tuple[int, ...], Tensor] = {}
        for key in where.keys() & held.keys():
            kept, logits[key] = held[key]
            self._place(kept[:, :, None], [where[key]], [len(key)], cache)
        cache.held = {key: held[key] for key in held if key == last}
        for group in _groups([key for key in where if key not in held]):
            computed, after = self._prefill(group, cache)
            self._place(computed, [where[key] for key in group], [len(key) for key in group], cache)
            logits |= zip(group, after, strict=True)
            if last in group:
                number = group.index(last)
                cache.held[last] = computed[:, :, number, : len(last)].clone(), after[number].clone()
        return torch.stack([logits[key] for key in keys])

    def step(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Logits, (rows, V) in fp32, after one more token a row, which stands at `positions`."""
        logits = cache.steps(tokens, positions)
        self.no_graphs = cache.steps.off
        return logits

    def _place(self, computed: Tensor, places: list[list[int]], lengths: list[int], cache: Cache) -> None:
        """Copy keys and values, (layers, 2, prompts, T, K, D), into the places of each prompt."""
        to = [place for several in places for place in several]
        of = [i for i, several in enumerate(places) for _ in several]
        width = max(lengths)
        rows, prompts = (torch.tensor(numbers, device=self.device) for numbers in (to, of))
        cache.tensor[:, :, rows, :width] = computed[:, :, prompts, :width]

    def _prefill(self, prompts: list[tuple[int, ...]], cache: Cache) -> tuple[Tensor, Tensor]:
        """Keys and values of prompts, (layers, 2, prompts, T, K, D), and the logits after each, (prompts, V).

        Prompts are padded on the right: attention is causal, so that no token sees the padding.
        """
        self.num_prefills += len(prompts)
        width, rows = max(map(len, prompts)), len(prompts)
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=self.device)
        computed = cache.tensor.new_empty((len(self.layers), 2, rows, width, *cache.tensor.shape[-2:]))
        heads, shared = self.num_heads, self.num_heads // self.num_kv_heads
        cos, sin = (angles[:width, None].expand(-1, 1, -1) for angles in (cache.cos, cache.sin))
        bands = {seen: _band(width, seen, self.device) for seen in {layer.window for layer in self.layers}}
        x = self.trunk.embed_tokens(ids).view(rows * width, -1)
        for layer, (keys, values) in zip(self.layers, computed, strict=True):
            turned, v = self._qkv(layer, norm(layer.norm_in, x).view(rows * width, -1), (rows, width), cos, sin)
            keys.copy_(turned[..., heads:, :])
            values.copy_(v)
            q = turned[..., :heads, :].transpose(1, 2)
            k, v = (part.transpose(1, 2).repeat_interleave(shared, 1) for part in (keys, values))
            band = bands[layer.window]
            seen = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=band, is_causal=band is None, scale=layer.scaling
            )
            x = self._rest(layer, x, seen.transpose(1, 2).reshape(rows * width, -1))
        last = torch.tensor([i * width + len(prompt) - 1 for i, prompt in enumerate(prompts)], device=self.device)
        return computed, self.output(norm(self.trunk.norm, x[last]))

    def _step(self, tokens: Tensor, positions: Tensor, cached: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        rows, width = cached.shape[2:4]
        heads, kv_heads, dim = self.num_heads, self.num_kv_heads, self.head_dim
        cos, sin = (angle[positions][:, None] for angle in angles)
        slots = torch.arange(rows, device=self.device) * width + positions  # of the new token, in all rows' caches
        columns = torch.arange(width, device=self.device)
        masks = {seen: self._mask(columns, positions, seen) for seen in {layer.window for layer in self.layers}}
        x = self.trunk.embed_tokens(tokens)
        for layer, (keys, values) in zip(self.layers, cached, strict=True):
            turned, v = self._qkv(layer, norm(layer.norm_in, x), (rows,), cos, sin)
            keys.view(rows * width, kv_heads, dim).index_copy_(0, slots, turned[:, heads:])
            values.view(rows * width, kv_heads, dim).index_copy_(0, slots, v)
            seen = functional.scaled_dot_product_attention(
                turned[:, :heads].reshape(rows, kv_heads, -1, dim),  # heads that share keys are queries of one
                keys.transpose(1, 2),
                values.transpose(1, 2),
                attn_mask=masks[layer.window].expand(-1, kv_heads, heads // kv_heads, -1),
                scale=layer.scaling,
            )
            x = self._rest(layer, x, seen.reshape(rows, -1))
        return self.output(norm(self.trunk.norm, x))  # type: ignore[no-any-return]

    def _qkv(self, layer: Layer, x: Tensor, shape: tuple[int, ...], cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys turned (Su et al. 2021, eq. 34, Llama's half-split layout), (*shape, H + K, D); values."""
        both = self.num_heads + self.num_kv_heads
        qkv = layer.qkv(x).view(*shape, both + self.num_kv_heads, self.head_dim)
        turning, values = qkv[..., :both, :], qkv[..., both:, :]
        if layer.norm_qk is not None:
            of_q, of_k = layer.norm_qk
            queries, keys = turning.split([self.num_heads, self.num_kv_heads], -2)
            turning = torch.cat([norm(of_q, queries), norm(of_k, keys)], -2)
        return torch.addcmul(turning * cos, turning.roll(self.head_dim // 2, -1), sin), values

    def _rest(self, layer: Layer, x: Tensor, seen: Tensor) -> Tensor:
        """The layer's output, from its input and what attention saw, (N, H x D)."""
        x = layer.out(seen, x)
        gate, up = layer.gate_up(norm(layer.norm_mlp, x)).chunk(2, -1)
        return layer.down(layer.activation(gate) * up, x)

    def _mask(self, columns: Tensor, positions: Tensor, seen: int | None) -> Tensor:
        """0 where a row's new token sees the column, else -inf: (rows, 1, 1, width)."""
        hidden = columns > positions[:, None]
        if seen is not None:
            hidden = hidden | (columns <= positions[:, None] - seen)
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device)
        return mask.masked_fill_(hidden, -torch.inf)[:, None, None]


def norm(module: Any, x: Tensor) -> Tensor:
    """RMSNorm (Zhang and Sennrich 2019, eq. 4) over the last dimension, in one kernel."""
    weight: Tensor = module.weight
    return functional.rms_norm(x, weight.shape, weight.to(x.dtype), module.variance_epsilon)


def _band(width: int, seen: int | None, device: torch.device) -> Tensor | None:
    """What each token of a prompt sees where a sliding window is shorter than it, (width, width); else None."""
    if seen is None or seen >= width:
        return None
    at = torch.arange(width, device=device)
    return (at[None] <= at[:, None]) & (at[None] > at[:, None] - seen)


def _groups(prompts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """`prompts`, sorted by length, cut where the padded tokens of a group would be more than PREFILL_TOKENS."""
    groups: list[list[tuple[int, ...]]] = []
    for prompt in prompts:
        if not groups or len(prompt) * (len(groups[-1]) + 1) > PREFILL_TOKENS:
            groups.append([])
        groups[-1].append(prompt)
    return groups


def in_order(prompts: list[list[int]]) -> list[int]:
    """Which prompt gets a place first: shortest first, copies of a prompt beside each other."""
    return sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
