"""A padded batch as one sequence of distinct tokens: no padding, and what several rows begin with is computed once.

The pairs of DPO share their prompt, the completions of a group too, and whole data sets a system message. Rows are
merged into a prefix tree; each node is a run of tokens whose keys are its ancestors' and its own. Hidden states of a
causal model depend on nothing else, so the result is that of the padded forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_SHARED_TOKENS = 8  # a shorter common beginning costs more as a node of its own than it saves


@dataclass(frozen=True)
class Node:
    """Tokens start..end of the packed sequence, which see `context` (packed indices, its ancestors) and themselves."""

    start: int
    end: int
    context: Tensor | None


@dataclass(frozen=True)
class Packed:
    """N distinct tokens of a batch of (B, T)."""

    ids: Tensor  # (N,)
    positions: Tensor  # (N,) the place of each in its row, padding not counted
    nodes: list[Node]
    place: Tensor  # (B, T) where each real token is in the packed sequence; 0 on padding
    mask: Tensor  # (B, T) bool

    def unpack(self, hidden: Tensor) -> Tensor:
        """(N, H) -> (B, T, H), zero on padding."""
        padded = hidden[self.place.reshape(-1)].view(*self.place.shape, -1)
        return padded * self.mask.unsqueeze(-1)


def pack(input_ids: Tensor, attention_mask: Tensor) -> Packed:
    """Pack (B, T) token ids; padding may be on either side. Rows without a token are allowed."""
    mask = attention_mask.bool()
    rows = [ids[real].tolist() for ids, real in zip(input_ids, mask, strict=True)]
    builder = _Builder(rows)
    builder.add(sorted(range(len(rows)), key=rows.__getitem__), 0, [])
    place = torch.zeros(mask.shape, dtype=torch.long)
    place[mask] = torch.cat([indices for row in builder.where for indices in row])
    return Packed(torch.tensor(builder.ids), torch.tensor(builder.positions), builder.nodes, place, mask)


class _Builder:
    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.nodes: list[Node] = []
        self.where: list[list[Tensor]] = [[] for _ in rows]  # packed indices of each row's tokens, by node

    def add(self, members: list[int], start: int, context: list[Tensor]) -> None:
        """Add what rows `members`, in lexicographic order and equal before `start`, hold from there on."""
        first, last = self.rows[members[0]], self.rows[members[-1]]
        common = len(first) if len(members) == 1 else _common(first, last)  # in sorted order, common to all
        if len(members) == 1 or common - start >= MIN_SHARED_TOKENS:
            indices = torch.arange(len(self.ids), len(self.ids) + common - start)
            if common > start:
                self.nodes.append(Node(len(self.ids), len(self.ids) + common - start, _joined(context)))
                self.ids += first[start:common]
                self.positions += range(start, common)
                for member in members:
                    self.where[member].append(indices)
                context = [*context, indices]
            start = common
        if len(members) > 1:
            for child in self._split(members, common):
                self.add(child, start, context)

    def _split(self, members: list[int], at: int) -> list[list[int]]:
        """Groups of rows with the same token at `at`; a row that ends there is alone."""
        groups: list[list[int]] = []
        token: int | None = None
        for member in members:
            row = self.rows[member]
            if len(row) > at and groups and row[at] == token:
                groups[-1].append(member)
            else:
                groups.append([member])
            token = row[at] if len(row) > at else None
        return groups


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _joined(context: list[Tensor]) -> Tensor | None:
    return torch.cat(context) if context else None
