"""Causal attention over a packed sequence, node by node, with a backward that recomputes the probabilities."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trueup.cpu.packing import Node


def forward(q: Tensor, k: Tensor, v: Tensor, nodes: list[Node]) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, eq. 1 of Vaswani et al. 2017, queries in groups: q (N, H, D), k and v (N, K, D)."""
    out = torch.empty_like(q)
    for node in nodes:
        queries, keys, values = _of(node, q, k, v)
        out[node.start : node.end] = _ungroup(_probabilities(queries, keys, node) @ values, node.end - node.start)
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, nodes: list[Node]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    scale = q.shape[-1] ** -0.5
    num_kv_heads = k.shape[1]
    for node in nodes:
        own = slice(node.start, node.end)
        queries, keys, values = _of(node, q, k, v)
        p = _probabilities(queries, keys, node)
        g = _group(grad[own], num_kv_heads)
        d_values = p.transpose(1, 2) @ g
        inner = (g * _group(out[own], num_kv_heads)).sum(-1, keepdim=True)
        d_scores = (g @ values.transpose(1, 2)).sub_(inner).mul_(p).mul_(scale)
        grad_q[own] = _ungroup(d_scores @ keys, node.end - node.start)
        d_keys = d_scores.transpose(1, 2) @ queries
        for whole, part in ((grad_k, d_keys), (grad_v, d_values)):
            part = part.transpose(0, 1)
            if node.context is not None:
                whole.index_add_(0, node.context, part[: len(node.context)].contiguous())
                part = part[len(node.context) :]
            whole[own] += part
    return grad_q, grad_k, grad_v


def _of(node: Node, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A node's queries (K, groups x n, D), and the keys and values it sees, (K, m, D)."""
    own = slice(node.start, node.end)
    if node.context is None:
        keys, values = k[own], v[own]
    else:
        keys, values = torch.cat([k[node.context], k[own]]), torch.cat([v[node.context], v[own]])
    return _group(q[own], k.shape[1]), keys.transpose(0, 1), values.transpose(0, 1)


def _probabilities(queries: Tensor, keys: Tensor, node: Node) -> Tensor:
    """(K, groups x n, m), softmax in fp32."""
    n, m = node.end - node.start, keys.shape[1]
    scores = (queries @ keys.transpose(1, 2)).mul_(queries.shape[-1] ** -0.5)
    if n > 1:
        scores.view(len(keys), -1, n, m)[..., m - n :].masked_fill_(_future(n), -torch.inf)
    return torch.softmax(scores, -1, dtype=torch.float32).to(queries.dtype)


@lru_cache(maxsize=64)
def _future(n: int) -> Tensor:
    """True where a key comes after the query, (n, n)."""
    return torch.ones(n, n, dtype=torch.bool).triu_(1)


def _group(x: Tensor, num_kv_heads: int) -> Tensor:
    """(n, H, D) -> (K, groups x n, D): the queries that read one head of keys, together."""
    n, num_heads, dim = x.shape
    return x.view(n, num_kv_heads, num_heads // num_kv_heads, dim).permute(1, 2, 0, 3).reshape(num_kv_heads, -1, dim)


def _ungroup(x: Tensor, n: int) -> Tensor:
    """(K, groups x n, D) -> (n, H, D), the inverse of `_group`."""
    num_kv_heads, _, dim = x.shape
    return x.view(num_kv_heads, -1, n, dim).permute(2, 0, 1, 3).reshape(n, -1, dim)
