"""A score head alone, on hidden states that stay as they are: logistic regression with an L2 penalty, for few labels.

The minimum of the loss is found exactly, so that there is no learning rate and no number of epochs. The penalty is
chosen by cross-validation over prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from trueup import gpu
from trueup.models import base, causal
from trueup.run.stage import Metrics
from trueup.training import ensemble, thresholds
from trueup.training.ensemble import Members
from trueup.training.losses import preference_loss, thumb_loss

PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4)  # of |w|^2 / 2, for states of variance 1 / hidden
FOLDS = 5


def learn(trainer: Any, number: int = 1, keep: Callable[[Members], None] = lambda made: None) -> Metrics:
    """Set the score head of a reward trainer's model, and the thresholds, by its training rows, and nothing else.

    With a `number` above 1, `keep` is given so many heads, each of a draw of the prompts, and the model's own head and
    thresholds are the mean of theirs, on one scale.
    """
    began, model = time.monotonic(), trainer.model
    labels, answers = labels_of(list(trainer.train_dataset))
    states = states_of(model, answers, 2 * trainer.args.per_device_eval_batch_size)
    features, mean, spread = standard(states)
    people = int(labels.person.max()) + 1
    tried = cross_validated(features, labels, people, trainer.args.seed)
    penalty = best(tried)
    hidden = states.shape[1]
    if number == 1:
        found = fit(features, labels, people, penalty)
        head, between = found[:hidden] / spread, found[hidden:]
    else:
        fitted = fit_members(features, labels, people, penalty, number, trainer.args.seed)
        weight = fitted[:, :hidden] / spread
        keep(made := ensemble.members(weight, weight @ states.T))
        head = (weight / made.spread[:, None]).mean(0)
        between = (fitted[:, hidden:] / made.spread[:, None]).mean(0)
    score = model.get_base_model().score.modules_to_save["default"].weight
    with torch.no_grad():
        score.copy_(head[None])
    if thresholds.there(model):
        thresholds.put(model, between + mean @ head)
    return {
        "resumed_from_step": 0,
        "training": gpu.described(model),
        **base.computed_in(model),
        "penalty": penalty,
        # of the training labels, each by its weight; of a single prompt nothing can be left out
        "cross_validated_accuracy": tried[penalty][1] if len(torch.unique(labels.prompt)) > 1 else None,
        "train_s": round(time.monotonic() - began, 1),
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model),
        "trainable_parameters": hidden * number,
    }


@torch.no_grad()
def states_of(model: Any, answers: Sequence[list[int]], batch_size: int) -> Tensor:
    """The hidden state at the last token of each conversation, (answers, hidden) in fp32 on the CPU."""
    model.eval()
    order = sorted(range(len(answers)), key=lambda i: len(answers[i]))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        width = len(answers[some[-1]])
        ids = torch.tensor([answers[i] + [0] * (width - len(answers[i])) for i in some], device=model.device)
        last = torch.tensor([len(answers[i]) - 1 for i in some], device=model.device)
        mask = (torch.arange(width, device=model.device) <= last[:, None]).long()
        states = causal.hidden_states(model, ids, mask)[torch.arange(len(some), device=model.device), last]
        found |= dict(zip(some, states.float().cpu(), strict=True))
    return torch.stack([found[i] for i in range(len(answers))])


def scores_of(trainer: Any, heads: Members, answers: Sequence[list[int]]) -> list[list[float]]:
    """The score of each head, on the scale of all, of conversations as token ids, (members, conversations)."""
    states = states_of(trainer.model, answers, 2 * trainer.args.per_device_eval_batch_size)
    found: list[list[float]] = heads.one_scale(heads.weight @ states.T).tolist()
    return found


@dataclass(frozen=True)
class Labels:
    """Pairs and thumbs, (rows,) each, as the columns of `chat.rows` say; a thumb's `rejected` is its `chosen`."""

    chosen: Tensor  # place of the answer among the states
    rejected: Tensor
    weight: Tensor
    scale: Tensor
    soft: Tensor
    person: Tensor  # -1 of a pair
    up: Tensor
    prompt: Tensor  # its number

    def only(self, rows: Tensor) -> Labels:
        """The rows where the mask, (rows,), is True."""
        return replace(self, **{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def standard(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(features, mean, spread) of (answers, hidden) states: of mean 0, and of variance 1 / hidden."""
    mean, spread = states.mean(0), (states.std(0) + 1e-6) * states.shape[1] ** 0.5
    return (states - mean) / spread, mean, spread


def loss_of(features: Tensor, labels: Labels, found: Tensor) -> Tensor:
    """The mean over the rows of weight x loss, under the head and the thresholds in `found`, (hidden + people,)."""
    hidden, paired = features.shape[1], labels.person < 0
    scores, between = features @ found[:hidden], found[hidden:]
    chosen, loss = scores[labels.chosen], found.new_zeros(())
    if paired.any():
        difference = (chosen - scores[labels.rejected])[paired]
        part = preference_loss(difference, labels.weight[paired], labels.scale[paired], labels.soft[paired])
        loss = loss + part * paired.sum() / len(paired)
    if not paired.all():
        person, up = labels.person[~paired], labels.up[~paired] > 0
        part = thumb_loss(chosen[~paired], between[person], up, labels.weight[~paired])
        loss = loss + part * (~paired).sum() / len(paired)
    return loss


def fit(features: Tensor, labels: Labels, people: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """(hidden + people,): the head, and each person's threshold, which is not penalized, where the loss is least.

    Weights are relative: they are brought to mean 1.
    """
    hidden, even = features.shape[1], replace(labels, weight=labels.weight / labels.weight.mean())
    found = (torch.zeros(hidden + people) if start is None else start.clone()).requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=200, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(features, even, found) + penalty * found[:hidden].square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return found.detach()


def fit_members(features: Tensor, labels: Labels, people: int, penalty: float, number: int, seed: int) -> Tensor:
    """`fit` to each of `number` bootstrap draws of the prompts, (number, hidden + people)."""

    def enough(rows: Tensor) -> bool:
        some = labels.only(rows)
        return bool((some.person < 0).any()) or len(torch.unique(some.up)) > 1

    draws = ensemble.bootstrap(labels.prompt, number, seed, enough)
    counted = (replace(labels, weight=labels.weight * count).only(count > 0) for count in draws)
    return torch.stack([fit(features, some, people, penalty) for some in counted])


def right(features: Tensor, labels: Labels, found: Tensor) -> Tensor:
    """Which of the labels, (rows,) bool, the head and the thresholds predict."""
    hidden = features.shape[1]
    scores, between = features @ found[:hidden], found[hidden:]
    chosen, ordered = scores[labels.chosen], scores[labels.chosen] > scores[labels.rejected]
    if not len(between):
        return ordered
    liked = (chosen > between[labels.person.clamp(min=0)]) == (labels.up > 0)
    return torch.where(labels.person < 0, ordered, liked)


def cross_validated(features: Tensor, labels: Labels, people: int, seed: int) -> dict[float, tuple[float, float]]:
    """By penalty, (loss, accuracy) on the labels of prompts that were left out in turn, each label by its weight."""
    prompts = torch.unique(labels.prompt)
    order = prompts[torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed))]
    loss, hits, total = dict.fromkeys(PENALTIES, 0.0), dict.fromkeys(PENALTIES, 0.0), 0.0
    for fold in range(FOLDS):
        apart = torch.isin(labels.prompt, order[fold::FOLDS])
        train, test = labels.only(~apart), labels.only(apart)
        if not len(train.weight) or not len(test.weight):
            continue
        found: Tensor | None = None
        for penalty in PENALTIES:  # from the strongest: each begins where the last one ended
            found = fit(features, train, people, penalty, found)
            loss[penalty] += float(loss_of(features, test, found)) * len(test.weight)
            hits[penalty] += float(test.weight[right(features, test, found)].sum())
        total += float(test.weight.sum())
    return {penalty: (loss[penalty] / total, hits[penalty] / total) if total else (0.0, 0.0) for penalty in PENALTIES}


def best(found: dict[float, tuple[float, float]]) -> float:
    """The penalty of the least loss; of equals the strongest. Accuracy changes too much from one split to another."""
    return min(found, key=lambda penalty: (found[penalty][0], -penalty))


def labels_of(rows: Sequence[dict[str, Any]]) -> tuple[Labels, list[list[int]]]:
    """The labels of a reward trainer's rows, and the token ids of the distinct answers that they speak of."""
    places: dict[tuple[int, ...], int] = {}
    prompts: dict[str, int] = {}
    found: list[tuple[float, ...]] = []
    for row in rows:
        sides = [places.setdefault(tuple(row[name]), len(places)) for name in ("chosen_ids", "rejected_ids")]
        number = prompts.setdefault(row["id"].rsplit("/", 1)[0], len(prompts))
        found.append((*sides, row["weight"], row["scale"], row["soft"], row["person"], row["up"], number))
    columns = [torch.tensor(column) for column in zip(*found, strict=True)]
    chosen, rejected, weight, scale, soft, person, up, prompt = columns
    made = Labels(chosen, rejected, weight.float(), scale.float(), soft.float(), person.long(), up, prompt)
    return made, [list(ids) for ids in places]
