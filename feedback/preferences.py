"""Which prompts are held out, and single judgements as KTO learns from them, each with its weight."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback import pairing
from trueup.feedback.votes import Vote

Row = dict[str, Any]


def split_prompts(prompt_ids: list[str], held_out: float, seed: int) -> dict[str, str]:
    """train or held_out for each prompt, by a seeded hash; both sides hold a prompt when there are two or more."""
    ranked = sorted(prompt_ids, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest())
    count = min(max(round(len(ranked) * held_out), 1), len(ranked) - 1) if len(ranked) > 1 and held_out > 0 else 0
    return {name: "held_out" if rank < count else "train" for rank, name in enumerate(ranked)}


def single_rows(votes: list[Vote], known: dict[str, Row], counts: Counter[str]) -> list[Row]:
    """One row for each thumb, weighing the share of annotators who agree with it."""
    totals, agree = Counter(v.uid for v in votes), Counter((v.uid, v.up) for v in votes)
    counts["completions_disputed"] += sum(0 < agree[(uid, True)] < total for uid, total in totals.items())
    return [
        {
            "prompt": known[vote.uid]["messages"],
            "completion": known[vote.uid]["completion"],
            "label": vote.up,
            "weight": agree[(vote.uid, vote.up)] / totals[vote.uid],
            "uid": vote.uid,
            "annotator": vote.annotator,
            **pairing.as_sampled(known[vote.uid], "completion"),
        }
        for vote in sorted(votes, key=lambda v: (v.uid, v.annotator))
    ]


def kto_weights(num_desirable: float, num_undesirable: float) -> tuple[float, float]:
    """lambda_D and lambda_U with lambda_D n_D / (lambda_U n_U) in [1, 4/3] (Ethayarajh et al. 2024, eq. 9).

    Each side counts the sum of its rows' weights; the rarer side is raised. Raises FeedbackError when a side is empty.
    """
    if min(num_desirable, num_undesirable) == 0:
        side = "up" if num_desirable == 0 else "down"
        raise FeedbackError(
            "feedback",
            found=f"{num_desirable} thumbs up, {num_undesirable} down",
            expected="both kinds",
            next_step=f"collect some thumbs {side}",
        )
    ratio = num_desirable / num_undesirable
    if ratio < 1:
        return 1 / ratio, 1.0
    return (1.0, ratio / (4 / 3)) if ratio > 4 / 3 else (1.0, 1.0)
