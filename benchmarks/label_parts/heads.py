"""A linear head with an L2 penalty on frozen features, by trueup's own code: its labels, and how right it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trueup.training import frozen_head


@dataclass
class Labels:
    """What a head learns from: pairs of answers (chosen, rejected) and single thumbs, by their rows in the features."""

    rows: list[tuple[float, ...]] = field(default_factory=list)  # in the order of frozen_head.Labels, without prompts

    def pair(self, chosen: int, rejected: int, weight: float = 1.0, scale: float = 1.0, label: float = 1.0) -> None:
        self.rows.append((chosen, rejected, weight, scale, label, -1, 0))

    def thumb(self, answer: int, person: int, up: bool, weight: float = 1.0) -> None:
        self.rows.append((answer, answer, weight, 1.0, 1.0, person, up))

    def made(self, prompts: Sequence[str]) -> frozen_head.Labels:
        """As tensors; `prompts` has the prompt of each answer."""
        chosen, rejected, *how, person, up = (torch.tensor(column) for column in zip(*self.rows, strict=True))
        number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        of_row = torch.tensor([number[prompts[int(row[0])]] for row in self.rows])
        return frozen_head.Labels(chosen, rejected, *(one.float() for one in how), person, up, of_row)


def standard(states: np.ndarray, known: Sequence[bool]) -> Tensor:
    """Features of mean 0 and variance 1 / hidden over the answers that are `known` before training."""
    found = torch.tensor(states)
    _, mean, spread = frozen_head.standard(found[torch.tensor(known)])
    return (found - mean) / spread


def head_of(features: Tensor, prompts: Sequence[str], labels: Labels, seed: int) -> Tensor:
    """(hidden,): the head under the penalty that cross-validation by prompt chooses."""
    made = labels.made(prompts)
    people = int(made.person.max()) + 1
    penalty = frozen_head.best(frozen_head.cross_validated(features, made, people, seed))
    return frozen_head.fit(features, made, people, penalty)[: features.shape[1]]


def accuracy(features: Tensor, head: Tensor, pairs: Sequence[tuple[int, int]]) -> float:
    """The share of the pairs (better, worse) in truth that a head orders right."""
    better, worse = torch.tensor(pairs).T
    scores = features @ head
    return float((scores[better] > scores[worse]).float().mean())
