"""The losses, pure functions of log-probabilities or scores, and of the weight that each sample has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueup.errors import FeedbackError


def dpo_loss(policy: Tensor, reference: Tensor, weight: Tensor, beta: float) -> Tensor:
    """Eq. 7 of Rafailov et al. 2023, the mean over pairs of weight x loss.

    `policy` and `reference` are (2 x pairs,) summed log-probabilities, the chosen first; `weight` is (pairs,),
    with mean 1 over the whole training set (see `mean_one`), so that a light batch counts for less than a heavy one.
    """
    chosen, rejected = (policy - reference).chunk(2)
    losses = -torch.nn.functional.logsigmoid(beta * (chosen - rejected))
    return (losses * weight).mean()


def kto_loss(policy: Tensor, reference: Tensor, kl: Tensor, desirable: Tensor, weight: Tensor, beta: float) -> Tensor:
    """Eq. 8 of Ethayarajh et al. 2024, the mean over rows of weight x (1 - v / lambda).

    All are (rows,) but `kl`, a scalar >= 0 in nats; `desirable` is bool; `weight` holds lambda_D or lambda_U times
    the row's own weight.
    """
    side = torch.where(desirable, 1.0, -1.0)
    return (weight * (1 - torch.sigmoid(beta * side * (policy - reference - kl)))).mean()


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, weight: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected) (Bradley and Terry 1952), the mean of weight x loss, all (pairs,)."""
    losses = -torch.nn.functional.logsigmoid(chosen - rejected)
    return (losses * weight).mean()


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
