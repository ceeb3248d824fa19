"""How far annotators agree, on what more than one of them judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from trueup.feedback.votes import Vote


def pairwise_agreement(votes: Iterable[Vote]) -> dict[str, Any]:
    """Share of pairs of annotators with the same verdict on the same completion, and the number of such pairs.

    `agreement` is None where nobody judged the same completion twice.
    """
    verdicts: dict[str, dict[str, bool]] = defaultdict(dict)
    for vote in votes:
        verdicts[vote.uid][vote.annotator] = vote.up
    same = [a == b for found in verdicts.values() for a, b in combinations(found.values(), 2)]
    return {"agreement": sum(same) / len(same) if same else None, "num_compared": len(same)}
