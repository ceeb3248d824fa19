"""Attention of one new token per row, (heads x D, rows), to the keys and values in its row's cache."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trueup.cpu import attention_source, kernels, machine_code
from trueup.cpu.block import Rotary


class Step:
    """One step of decoding: each row's new token stands at its position. Called once per layer, with its cache.

    Where there is a kernel (fp32, GNU OpenMP) that does all of it; else torch does. The cache is fp32 or bf16.
    """

    def __init__(
        self, rotary: Rotary, positions: Tensor, num_kv_heads: int, cached: torch.dtype = torch.float32
    ) -> None:
        self.positions, self.num_kv_heads = positions, num_kv_heads
        self.cos, self.sin = (columns(angles[:, 0]) for angles in (rotary.cos, rotary.sin))
        self.head_dim, dtype, self.end = len(self.cos), self.cos.dtype, int(positions.max()) + 1
        self.cached = cached
        self.kernel = kernel_for(self.head_dim, cached) if dtype == torch.float32 else None
        if self.kernel is None:
            unseen = torch.zeros(len(positions), self.end, dtype=dtype)
            unseen.masked_fill_(torch.arange(self.end) > positions[:, None], -torch.inf)
            self.unseen = unseen.repeat_interleave(num_kv_heads, 0)[:, None]

    def __call__(self, heads: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the queries see, (H x D, rows); of `heads`, (H + 2 K) x D of them, keys and values go into the cache.

        The cache is (rows, K, width, D) each. Queries and keys are not turned yet. `heads` may be overwritten.
        """
        if self.kernel is None:
            return self._by_torch(heads, keys, values)
        num_heads = len(heads) // self.head_dim - 2 * self.num_kv_heads
        out = heads.new_zeros(num_heads * self.head_dim, heads.shape[1])
        tensors = {"heads": heads, "keys": keys, "values": values, "out": out}
        tensors |= {"cos": self.cos, "sin": self.sin, "positions": self.positions}
        cells = (len(self.positions), self.num_kv_heads, keys.shape[2], self.head_dim)
        if self.end > keys.shape[2]:
            raise ValueError(f"position {self.end - 1} in a cache of {keys.shape[2]}")
        kinds = {"positions": torch.int64, "keys": self.cached, "values": self.cached}
        right = all(tensor.dtype == kinds.get(name, torch.float32) for name, tensor in tensors.items())
        if not right or keys.shape != cells or values.shape != cells or heads.shape[1] != self.cos.shape[1]:
            raise ValueError(
                f"cache {tuple(keys.shape)} and {tuple(values.shape)}: not contiguous {self.cached} {cells}"
            )
        if not all(tensor.is_contiguous() for tensor in tensors.values()):
            raise ValueError("tensors that are not contiguous")
        sizes = {"columns": heads.shape[1], "rows": len(self.positions), "kv_heads": self.num_kv_heads}
        sizes |= {"group": num_heads // self.num_kv_heads, "width": keys.shape[2]}
        self.kernel.run(machine_code.Arguments(attention_source.ARGUMENTS, **tensors, **sizes).array)
        return out

    def _by_torch(self, heads: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        num_rows, num_kv = len(self.positions), self.num_kv_heads * self.head_dim
        turned = heads[:-num_kv].view(-1, 2, self.head_dim // 2, heads.shape[1])
        halves = (2, -1, heads.shape[1])
        swapped = turned.flip(1).mul_(self.sin.view(halves))
        turned.mul_(self.cos.view(halves)).add_(swapped)
        q, k, v = (part[:, :num_rows].T for part in torch.split(heads, [len(heads) - 2 * num_kv, num_kv, num_kv]))
        places = torch.arange(num_rows * self.num_kv_heads) * keys.shape[2]  # in the cache, of each head's token
        places += self.positions.repeat_interleave(self.num_kv_heads)
        for cache, new in ((keys, k), (values, v)):
            cache.view(-1, self.head_dim).index_copy_(0, places, new.reshape(len(places), -1).to(cache.dtype))
        queries = q.reshape(len(places), -1, self.head_dim) * self.head_dim**-0.5
        seen_keys, seen_values = (cache.flatten(0, 1)[:, : self.end].to(q.dtype) for cache in (keys, values))
        scores = torch.bmm(queries, seen_keys.transpose(1, 2)).add_(self.unseen)
        shares = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
        return columns(torch.bmm(shares, seen_values).view(num_rows, -1))


def kernel_for(head_dim: int, cached: torch.dtype) -> machine_code.Kernel | None:
    """The kernel for heads of this dimension, a power of two; None where there is none."""
    if head_dim < 2 or head_dim & (head_dim - 1) or cached not in (torch.float32, torch.bfloat16):
        return None
    kind: Literal["float", "bfloat"] = "float" if cached == torch.float32 else "bfloat"
    return machine_code.compiled(attention_source.module(head_dim, kind))


def columns(x: Tensor) -> Tensor:
    """(rows, n) -> (n, rows), with columns of zeros up to what a kernel computes."""
    return torch.nn.functional.pad(x.T, (0, kernels.padded(len(x)) - len(x))).contiguous()
