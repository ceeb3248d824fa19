"""A reward model on the causal base: its head is read from the saved files, since peft drops it as an unknown key.

One with several members has a file MEMBERS as well. They are heads on one adapter, or each has an adapter of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import ModelError
from trueup.models import adapters, causal, errors
from trueup.models.combining import Combination
from trueup.run.artifacts import MEMBERS, member_folders

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Head:
    """What makes the hidden state at the end of a conversation a reward.

    With several members, a member's score is (state . weight - mean) / spread: `mean` and `spread` are those of its
    scores of the answers that the reward model was trained on, so that all members are on one scale. A single reward
    model has a mean of 0 and a spread of 1: its score is as it was trained.
    """

    weight: Tensor  # (members, hidden), fp32
    mean: Tensor  # (members,)
    spread: Tensor  # (members,)
    own: Tensor  # (1, hidden): the score weight that is saved with the adapter
    adapters: tuple[str, ...] = ("reward",)  # one for all members, or one for each
    combine: Combination = field(default_factory=Combination)


def load_reward(model: Any, folder: Path, combine: Combination | None = None, name: str = "reward") -> Head:
    """Load the reward model of `folder` into `model` as adapter `name`, frozen; further members as `name`_2 and so on.

    `combine` says how several members make one reward; by default it is their mean. Raises ModelError where the
    folder holds no reward model, and ConfigError where one member cannot be combined as asked.
    """
    import torch

    combine, device = combine or Combination(), next(model.parameters()).device
    heads = [_load(model, folder, name)]
    combine.refuse_one(folder)
    if not (folder / MEMBERS).exists():
        none, one = torch.zeros(1, device=device), torch.ones(1, device=device)
        return Head(heads[0], none, one, heads[0], (name,))
    names = [name]
    for number, other in enumerate(member_folders(folder), start=2):
        names.append(f"{name}_{number}")
        heads.append(_load(model, other, names[-1]))
    with errors.loading(str(folder / MEMBERS), folder, errors.of_adapter(folder)):
        from safetensors.torch import load_file

        saved = load_file(folder / MEMBERS)
    weight, mean, spread = (saved[key].float().to(device) for key in ("weight", "mean", "spread"))
    if len(names) not in (1, len(weight)) or not len(weight) == len(mean) == len(spread):
        raise ModelError(
            str(folder),
            found=f"{len(names)} adapters for {len(weight)} members",
            expected="one for all or one for each",
        )
    return Head(weight, mean, spread, heads[0], tuple(names), combine)


def _load(model: Any, folder: Path, name: str) -> Tensor:
    """Load a saved classifier's adapter into `model`, frozen; return its score weight, (1, hidden) in fp32."""
    tensors = adapters.saved_tensors(folder)
    heads = [tensor for key, tensor in tensors.items() if key.endswith("score.weight")]
    if len(heads) != 1:
        raise ModelError(str(folder), found=f"{len(heads)} score heads", expected="a reward adapter with one")
    adapters.load_frozen(model, folder, name)
    adapters.copy_into(model, {key: tensor for key, tensor in tensors.items() if "lora_" in key}, name)
    score: Tensor = heads[0].to(next(model.parameters()).device)
    return score


def save_members(folder: Path, weight: Tensor, mean: Tensor, spread: Tensor) -> None:
    """Write the members of a reward model beside its adapter; `Head` says what the tensors are."""
    from safetensors.torch import save_file

    tensors = {"weight": weight, "mean": mean, "spread": spread}
    save_file({key: value.detach().float().cpu().contiguous() for key, value in tensors.items()}, folder / MEMBERS)


def scores(model: Any, head: Head, conversations: Sequence[Sequence[int]]) -> Tensor:
    """The reward of each conversation, given as token ids (see `chat.template`), (conversations,) in fp32.

    Read at the last token, as the classifier was trained; of several members as `head.combine` says.
    """
    found = member_scores(model, head, conversations)
    return found[0] if len(found) == 1 else head.combine(found)


def member_scores(model: Any, head: Head, conversations: Sequence[Sequence[int]]) -> Tensor:
    """The score of each member, on the scale of all, (members, conversations) in fp32."""
    import torch

    states = [last_states(model, conversations, name) for name in head.adapters]
    if len(states) == 1:
        raw = states[0] @ head.weight.T
    else:
        raw = torch.stack([of @ weight for of, weight in zip(states, head.weight, strict=True)], 1)
    return ((raw - head.mean) / head.spread).T


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
