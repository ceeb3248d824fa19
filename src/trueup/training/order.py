"""The order of rows in an epoch: a function of the seed and the epoch's number alone.

A run that resumes in its third epoch then meets the rows that it would have met. The samplers of transformers and TRL
draw from generators whose state no checkpoint keeps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class Order(Sampler[int]):
    """A sampler whose trainer tells it the number of each epoch before it begins."""

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def draw(self) -> random.Random:
        """The generator of this epoch."""
        return random.Random(f"{self.seed}/{self.epoch}")  # noqa: S311 - an order, not a secret


class ByPrompt(Order):
    """The prompts in a new order each epoch, the rows of a prompt one after the other.

    A batch then computes once what the pairs of a prompt share.
    """

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        super().__init__(seed)
        self.groups: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            self.groups.setdefault(prompt, []).append(index)
        self.length = len(prompts)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        groups = list(self.groups.values())
        self.draw().shuffle(groups)
        return iter([index for group in groups for index in group])


class ByLength(Order):
    """Rows of similar length in one batch, so that little is padding: transformers' own grouping."""

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int) -> None:
        super().__init__(seed)
        self.lengths, self.rows_per_step = list(lengths), rows_per_step

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.draw().getrandbits(63))
        found: Sequence[Any] = get_length_grouped_indices(self.lengths, self.rows_per_step, generator=generator)
        return iter([int(index) for index in found])


class Rollouts(Order):
    """The order in which GRPO asks its prompts: each `num_repeats` times in a row, each rollout `num_uses` times.

    The layout of trl.trainer.utils.RepeatSampler; prompts that fill no whole rollout are left to the next epoch.
    """

    def __init__(self, num_prompts: int, per_rollout: int, num_repeats: int, num_uses: int, seed: int) -> None:
        super().__init__(seed)
        self.num_prompts, self.per_rollout = num_prompts, per_rollout
        self.num_repeats, self.num_uses = num_repeats, num_uses

    def __len__(self) -> int:
        return self.num_prompts // self.per_rollout * self.per_rollout * self.num_repeats * self.num_uses

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.num_prompts))
        self.draw().shuffle(order)
        for start in range(0, self.num_prompts - self.per_rollout + 1, self.per_rollout):
            rollout = [index for index in order[start : start + self.per_rollout] for _ in range(self.num_repeats)]
            for _ in range(self.num_uses):
                yield from rollout
