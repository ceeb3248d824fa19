"""The losses, pure functions of log-probabilities or scores, and of the weight that each sample has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trueup.errors import FeedbackError


def preference_loss(
    difference: Tensor, weight: Tensor, scale: Tensor | float = 1.0, label: Tensor | float = 1.0
) -> Tensor:
    """The mean over pairs of weight x -(label log sigmoid(scale d) + (1 - label) log sigmoid(-scale d)).

    `difference` d, of what the chosen and the rejected answer are worth to the model, and all else are (pairs,).
    `weight` has mean 1 over the whole training set (see `mean_one`), so that a light batch counts for less than a heavy
    one. With scale 2q - 1, q the probability that the chosen answer is the better one, this is the
    geometric averaging (GDPO) of Furuta et al. 2024 (arXiv:2409.06691); with label q, the two-sided soft label of
    conservative DPO (Mitchell 2023); with 1 and 1, Bradley and Terry's loss (1952).
    """
    scaled = scale * difference
    two_sided = label * logsigmoid(scaled) + (1 - label) * logsigmoid(-scaled)
    return -(two_sided * weight).mean()


def thumb_loss(scores: Tensor, thresholds: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """-log sigmoid(r - b) of a thumb up, -log sigmoid(b - r) of a thumb down; the mean of weight x loss, all (thumbs,).

    The likelihood of the proportional-odds model (McCullagh 1980) with two verdicts, and so one cut-point b for each
    person: somebody likes an answer of score r with probability sigmoid(r - b).
    """
    side = torch.where(up, 1.0, -1.0)
    return -(logsigmoid(side * (scores - thresholds)) * weight).mean()


def dpo_loss(
    policy: Tensor,
    reference: Tensor,
    weight: Tensor,
    beta: float,
    scale: Tensor | float = 1.0,
    label: Tensor | float = 1.0,
) -> Tensor:
    """Eq. 7 of Rafailov et al. 2023: `preference_loss` of beta x the difference of the log-ratios.

    `policy` and `reference` are (2 x pairs,) summed log-probabilities, the chosen first.
    """
    chosen, rejected = (policy - reference).chunk(2)
    return preference_loss(beta * (chosen - rejected), weight, scale, label)


def kto_loss(policy: Tensor, reference: Tensor, kl: Tensor, desirable: Tensor, weight: Tensor, beta: float) -> Tensor:
    """Eq. 8 of Ethayarajh et al. 2024, the mean over rows of weight x (1 - v / lambda).

    All are (rows,) but `kl`, a scalar >= 0 in nats; `desirable` is bool; `weight` holds lambda_D or lambda_U times
    the row's own weight.
    """
    side = torch.where(desirable, 1.0, -1.0)
    return (weight * (1 - torch.sigmoid(beta * side * (policy - reference - kl)))).mean()


def mean_one(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their weights divided by the mean weight: the learning rate keeps its meaning.

    Raises FeedbackError when there is none.
    """
    if not rows:
        raise FeedbackError(
            "feedback",
            found="no pairs to train on",
            expected="thumbs of both kinds on the same prompt",
            next_step="collect more thumbs; kto can use single ones, of both kinds",
        )
    mean = sum(row["weight"] for row in rows) / len(rows)
    return [row | {"weight": row["weight"] / mean} for row in rows]
