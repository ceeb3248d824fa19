"""A linear head with an L2 penalty on frozen features, trained by the losses of trueup, its penalty cross-validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trueup.training.losses import preference_loss, thumb_loss

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # of |w|^2 / 2, for features of unit variance over sqrt(hidden)
FOLDS = 4


@dataclass
class Labels:
    """What a head learns from: pairs of answers (chosen, rejected) and single thumbs, by their rows in the features."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    label: list[float] = field(default_factory=list)
    thumbs: list[tuple[int, int, bool]] = field(default_factory=list)  # (answer, person, up)
    thumb_weight: list[float] = field(default_factory=list)

    def pair(self, chosen: int, rejected: int, weight: float = 1.0, scale: float = 1.0, label: float = 1.0) -> None:
        self.pairs.append((chosen, rejected))
        self.weight.append(weight)
        self.scale.append(scale)
        self.label.append(label)

    def thumb(self, answer: int, person: int, up: bool, weight: float = 1.0) -> None:
        self.thumbs.append((answer, person, up))
        self.thumb_weight.append(weight)

    def only(self, prompts: Sequence[str], keep: set[str]) -> Labels:
        """Those about the prompts to `keep`."""
        found = Labels()
        for (c, r), weight, scale, label in zip(self.pairs, self.weight, self.scale, self.label, strict=True):
            if prompts[c] in keep:
                found.pair(c, r, weight, scale, label)
        for (answer, person, up), weight in zip(self.thumbs, self.thumb_weight, strict=True):
            if prompts[answer] in keep:
                found.thumb(answer, person, up, weight)
        return found


def standard(states: np.ndarray, known: Sequence[bool]) -> Tensor:
    """Features of mean 0 and variance 1 over the answers that are `known` before training, over sqrt(hidden)."""
    some = states[np.asarray(known)]
    scaled = (states - some.mean(0)) / (some.std(0) + 1e-6) / np.sqrt(states.shape[1])
    return torch.tensor(scaled, dtype=torch.float32)


def fit(features: Tensor, labels: Labels, penalty: float, start: Tensor | None = None) -> Tensor:
    """(hidden + people,): the head and each person's threshold, which is not penalized, at the minimum of the loss."""
    hidden, people = features.shape[1], 1 + max((person for _, person, _ in labels.thumbs), default=-1)
    found = (torch.zeros(hidden + people) if start is None else start.clone()).requires_grad_()
    total = sum(labels.weight) + sum(labels.thumb_weight)
    chosen, rejected = torch.tensor(labels.pairs or np.zeros((0, 2)), dtype=torch.long).T
    weight, scale, label = (torch.tensor(one) for one in (labels.weight, labels.scale, labels.label))
    answers, persons, ups = torch.tensor(labels.thumbs or np.zeros((0, 3)), dtype=torch.long).T
    thumb_weight = torch.tensor(labels.thumb_weight)
    apart, single = features[chosen] - features[rejected], features[answers]
    optimizer = torch.optim.LBFGS([found], max_iter=300, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        head, thresholds = found[:hidden], found[hidden:]
        loss = penalty * head.square().sum() / 2
        if len(chosen):
            loss = loss + preference_loss(apart @ head, weight * len(chosen) / total, scale, label)
        if len(answers):
            share = thumb_weight * len(answers) / total
            loss = loss + thumb_loss(single @ head, thresholds[persons], ups.bool(), share)
        loss.backward()
        return loss

    optimizer.step(closure)
    return found.detach()


def chosen_penalty(features: Tensor, prompts: Sequence[str], labels: Labels, seed: int) -> float:
    """The penalty under which the labels of prompts that were left out are predicted best; of equals the strongest."""
    names = sorted({prompts[row] for row, *_ in [*labels.pairs, *labels.thumbs]})
    np.random.default_rng(seed).shuffle(names)
    right = np.zeros(len(PENALTIES))
    for fold in range(FOLDS):
        apart = set(names[fold::FOLDS])
        train, test = labels.only(prompts, set(names) - apart), labels.only(prompts, apart)
        if not (train.pairs or train.thumbs):
            continue
        found = None
        for place, penalty in enumerate(PENALTIES):
            found = fit(features, train, penalty, found)
            right[place] += _right(features, test, found)
    return PENALTIES[int(right.argmax())]


def head_of(features: Tensor, prompts: Sequence[str], labels: Labels, seed: int) -> Tensor:
    """(hidden,): the head under the penalty that cross-validation by prompt chooses."""
    return fit(features, labels, chosen_penalty(features, prompts, labels, seed))[: features.shape[1]]


def accuracy(features: Tensor, head: Tensor, pairs: Sequence[tuple[int, int]]) -> float:
    """The share of the pairs (better, worse) in truth that a head orders right."""
    better, worse = torch.tensor(pairs).T
    scores = features @ head[: features.shape[1]]
    return float((scores[better] > scores[worse]).float().mean())


def _right(features: Tensor, labels: Labels, found: Tensor) -> float:
    """How much weight the labels have that `found` predicts."""
    hidden = features.shape[1]
    scores, thresholds, total = features @ found[:hidden], found[hidden:], 0.0
    for (c, r), weight, scale, label in zip(labels.pairs, labels.weight, labels.scale, labels.label, strict=True):
        total += weight * scale * (2 * label - 1) * float(scores[c] > scores[r])
    for (answer, person, up), weight in zip(labels.thumbs, labels.thumb_weight, strict=True):
        if person < len(thresholds):
            total += weight * float((scores[answer] > thresholds[person]) == up)
    return total
