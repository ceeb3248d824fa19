"""Token ids of several conversations as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueup.chat.tokens import IGNORED


def pad(rows: Sequence[tuple[list[int], list[int]]], pad_id: int) -> dict[str, Any]:
    """Right-padded input_ids, attention_mask and labels, each (batch, tokens), of rows (prompt, completion).

    Labels are -100 outside the completions.
    """
    import torch

    width = max(len(p) + len(c) for p, c in rows)
    ids, mask, labels = [], [], []
    for prompt, completion in rows:
        tail = width - len(prompt) - len(completion)
        ids.append(prompt + completion + [pad_id] * tail)
        mask.append([1] * (width - tail) + [0] * tail)
        labels.append([IGNORED] * len(prompt) + completion + [IGNORED] * tail)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}
