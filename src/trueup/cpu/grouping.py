"""Runs of tokens of like length as one padded batch, so that attention takes a few large steps and not many small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trueup.cpu.packing import Node

WASTE = 2500  # scores of padding that cost as much as a step of its own
LARGEST = 2**17  # scores of one head in a step: they stay in the processor's cache


@dataclass(frozen=True)
class Group:
    """S nodes, padded to n queries that see at most m keys."""

    queries: Tensor  # (S, n) packed indices; on padding those of the node's first token
    keys: Tensor  # (S x m,) packed indices: the context, then the node itself
    unseen: Tensor  # (S, 1, 1, n, m) bool: keys that come after the query, and padding
    padding: Tensor | None  # (S, n, 1, 1) bool over the queries; None where there is none
    own: Tensor  # packed indices of the real queries, in order

    def flat(self, x: Tensor) -> Tensor:
        """(S, n, heads, D) -> (real queries, heads, D)."""
        rows = x.reshape(-1, *x.shape[2:])
        return rows if self.padding is None else rows[~self.padding.view(-1)]


def group(nodes: list[Node]) -> list[Group]:
    """Every node in one group; a node joins those of like length where the padding costs less than another step."""
    groups: list[list[Node]] = []
    widest, used = (0, 0), 0  # queries and context of the group so far, and scores of one head
    for node in sorted(nodes, key=_lengths):
        size = tuple(map(max, widest, _lengths(node)))
        scores = size[0] * sum(size) * (len(groups[-1]) + 1) if groups else 0
        if groups and scores <= LARGEST and scores - used - _scores(node) <= WASTE:
            groups[-1].append(node)
        else:
            groups.append([node])
            size, scores = _lengths(node), _scores(node)
        widest, used = (size[0], size[1]), scores
    return [_padded(members) for members in groups]


def _lengths(node: Node) -> tuple[int, int]:
    """Queries, and the tokens before them that they see."""
    return node.end - node.start, 0 if node.context is None else len(node.context)


def _scores(node: Node) -> int:
    queries, context = _lengths(node)
    return queries * (queries + context)


def _padded(nodes: list[Node]) -> Group:
    sizes = torch.tensor([_lengths(node) for node in nodes])
    n, c = (int(size) for size in sizes.amax(0))
    starts, own = torch.tensor([node.start for node in nodes])[:, None], torch.arange(n)
    outside = own >= sizes[:, :1]  # (S, n)
    queries = (starts + own).where(~outside, starts)
    contexts = starts.expand(-1, c).clone()
    for row, node in zip(contexts, nodes, strict=True):
        if node.context is not None:
            row[: len(node.context)] = node.context
    absent = torch.cat([torch.arange(c) >= sizes[:, 1:], outside], 1)  # (S, m)
    later = torch.arange(c + n) > c + own[:, None]  # (n, m)
    return Group(
        queries=queries,
        keys=torch.cat([contexts, queries], 1).view(-1),
        unseen=(absent[:, None] | later)[:, None, None],
        padding=outside[..., None, None] if outside.any() else None,
        own=queries[~outside],
    )
