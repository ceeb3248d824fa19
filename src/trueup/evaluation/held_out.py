"""How often a reward model, of one member or of several, is right on pairs that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueup.evaluation import intervals


def accuracy(sides: Sequence[Sequence[Sequence[float]]], prompts: Sequence[str]) -> dict[str, Any]:
    """How often the members' mean is right on held-out pairs, and each member.

    `sides` are the scores of the chosen and of the rejected, (members, pairs) each.
    """
    if not prompts:
        return {}
    means = [[sum(of) / len(of) for of in zip(*side, strict=True)] for side in sides]
    right = intervals.wins(means[0], means[1])
    found: dict[str, Any] = {
        "held_out_accuracy": sum(right) / len(right),  # over pairs
        "held_out_accuracy_by_prompt": intervals.win_rate(right, prompts),
    }
    if len(sides[0]) > 1:
        each = [intervals.wins(*both) for both in zip(*sides, strict=True)]
        found["members_accuracy"] = [sum(one) / len(one) for one in each]
        found["members_agree"] = sum(len(set(of)) == 1 for of in zip(*each, strict=True)) / len(prompts)  # of the pairs
    return found
