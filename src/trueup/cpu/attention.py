"""Causal attention over a packed sequence, group by group, with a backward that recomputes the probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from trueup.cpu.grouping import Group


def forward(q: Tensor, k: Tensor, v: Tensor, groups: list[Group]) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, eq. 1 of Vaswani et al. 2017, queries in groups: q (N, H, D), k and v (N, K, D)."""
    out = torch.empty_like(q)
    for group in groups:
        queries, keys, values = _of(group, q, k, v)
        out[group.own] = group.flat(_tokens_first(_probabilities(queries, keys, group) @ values, group))
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, groups: list[Group]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    scale, num_kv_heads = q.shape[-1] ** -0.5, k.shape[1]
    inner = (grad * out).sum(-1, keepdim=True)
    for group in groups:
        queries, keys, values = _of(group, q, k, v)
        p = _probabilities(queries, keys, group)
        g = _heads_first(grad, group, num_kv_heads)
        d_values = p.transpose(1, 2) @ g
        d_scores = (g @ values.transpose(1, 2)).sub_(_heads_first(inner, group, num_kv_heads)).mul_(p)
        grad_q[group.own] = group.flat(_tokens_first((d_scores @ keys).mul_(scale), group))
        d_keys = d_scores.transpose(1, 2) @ queries
        for whole, part in ((grad_k, d_keys), (grad_v, d_values)):
            by_token = part.view(len(group.queries), num_kv_heads, -1, part.shape[-1]).transpose(1, 2)
            whole.index_add_(0, group.keys, by_token.reshape(-1, *whole.shape[1:]))
    return grad_q, grad_k, grad_v


def _of(group: Group, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A group's queries over sqrt(D), (S x K, queries a key head x n, D), and the keys and values they see,
    (S x K, m, D).
    """
    size = (len(group.queries), -1, *k.shape[1:])
    keys, values = (x.index_select(0, group.keys).view(size).transpose(1, 2).flatten(0, 1) for x in (k, v))
    return _heads_first(q, group, k.shape[1]).mul_(q.shape[-1] ** -0.5), keys, values


def _probabilities(queries: Tensor, keys: Tensor, group: Group) -> Tensor:
    """(S x K, queries a key head x n, m), softmax in fp32."""
    num_nodes, n = group.queries.shape
    scores = queries @ keys.transpose(1, 2)
    if keys.shape[1] > 1:
        scores.view(num_nodes, len(keys) // num_nodes, -1, n, keys.shape[1]).masked_fill_(group.unseen, -torch.inf)
    return torch.softmax(scores, -1, dtype=torch.float32).to(queries.dtype)


def _heads_first(x: Tensor, group: Group, num_kv_heads: int) -> Tensor:
    """(N, H, D) -> (S x K, H / K x n, D): the queries that read one head of keys, together; zero on padding."""
    num_nodes, n = group.queries.shape
    chosen = x.index_select(0, group.queries.view(-1)).view(num_nodes, n, *x.shape[1:])
    if group.padding is not None:
        chosen.masked_fill_(group.padding, 0)
    by_head = chosen.view(num_nodes, n, num_kv_heads, -1, x.shape[-1]).permute(0, 2, 3, 1, 4)
    return by_head.reshape(num_nodes * num_kv_heads, -1, x.shape[-1])


def _tokens_first(x: Tensor, group: Group) -> Tensor:
    """(S x K, H / K x n, D) -> (S, n, H, D), the inverse of `_heads_first` but for padding."""
    num_nodes, n = group.queries.shape
    heads = x.view(num_nodes, len(x) // num_nodes, -1, n, x.shape[-1])
    return heads.permute(0, 3, 1, 2, 4).reshape(num_nodes, n, -1, x.shape[-1])
