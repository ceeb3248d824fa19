"""Prompts and their completions as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B sequences of prompt + completion, padded on the right to W tokens; completions padded to T tokens.

    Padding on the right leaves every token at its own position: no position ids are needed, and the sampler's left
    padding is gone before anything is scored.
    """

    input_ids: Tensor  # (B, W)
    attention_mask: Tensor  # (B, W)
    completion_ids: Tensor  # (B, T)
    mask: Tensor  # (B, T) bool, True on completion tokens, the end-of-turn token included
    states: Tensor  # (B, T) the position in W that predicts completion token t: the token before it

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def collate(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Token ids of B prompts and completions, none of them empty, as a Batch."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    ids = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    completion_ids = _pad(completions, pad_id)
    steps = torch.arange(completion_ids.shape[1])
    mask = steps < torch.tensor([len(completion) for completion in completions]).unsqueeze(1)
    return Batch(
        input_ids=_pad(ids, pad_id),
        attention_mask=_pad([[1] * len(row) for row in ids], 0),
        completion_ids=completion_ids,
        mask=mask,
        states=(lengths.unsqueeze(1) - 1 + steps).masked_fill(~mask, 0),
    )


def _pad(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
