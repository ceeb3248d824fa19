"""The order of pairs in an epoch: those of one prompt together, so that a batch computes what they share once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


class ByPrompt(Sampler[int]):
    """Indices of rows: the prompts in a new seeded order each epoch, the rows of a prompt one after the other.

    An epoch's order depends on `seed` and its number alone, so that a resumed run meets the rows it would have met.
    """

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        self.groups: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            self.groups.setdefault(prompt, []).append(index)
        self.length, self.seed, self.epoch = len(prompts), seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        groups = list(self.groups.values())
        random.Random(f"{self.seed}/{self.epoch}").shuffle(groups)  # noqa: S311 - no secret
        return iter([index for group in groups for index in group])
