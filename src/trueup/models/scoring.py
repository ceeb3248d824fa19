"""A reward adapter on the causal base: its head is read from the saved file, since peft drops it as an unknown key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import ModelError
from trueup.models import adapters, causal

if TYPE_CHECKING:
    from torch import Tensor


def load_reward(model: Any, folder: Path, name: str = "reward") -> Tensor:
    """Load the reward adapter of `folder` into `model`, frozen; return its score weight, (1, hidden) in fp32."""
    tensors = adapters.saved_tensors(folder)
    heads = [tensor for key, tensor in tensors.items() if key.endswith("score.weight")]
    if len(heads) != 1:
        raise ModelError(str(folder), found=f"{len(heads)} score heads", expected="a reward adapter with one")
    adapters.load_frozen(model, folder, name)
    adapters.copy_into(model, {key: tensor for key, tensor in tensors.items() if "lora_" in key}, name)
    score: Tensor = heads[0].to(next(model.parameters()).device)
    return score


def scores(model: Any, head: Tensor, conversations: Sequence[Sequence[int]], name: str = "reward") -> Tensor:
    """The reward of each conversation, given as token ids (see `chat.template`), (conversations,) in fp32.

    Read at the last token, as the classifier was trained.
    """
    return last_states(model, conversations, name) @ head[0]


def last_states(model: Any, conversations: Sequence[Sequence[int]], name: str) -> Tensor:
    """The hidden state of each conversation's last token under adapter `name`, (conversations, hidden) in fp32."""
    import torch

    width, device = max(map(len, conversations)), next(model.parameters()).device
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in conversations], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in conversations], device=device)
    last = mask.sum(1) - 1
    with torch.no_grad(), adapters.using(model, name):
        hidden = causal.hidden_states(model, ids, mask)
    return hidden[torch.arange(len(conversations)), last].float()
