"""Thumbs become training data: pairs for reward and DPO, single rows for KTO, each with its weight."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback import pairing
from trueup.feedback.votes import Vote, last_verdicts

Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Pairs and rows with their split, and counts of what was used, and of what was not and why."""

    pairs: list[Row]
    rows: list[Row]
    counts: dict[str, int]

    @property
    def num_prompts(self) -> int:
        """How many prompts have a judgement."""
        return len({row["prompt_id"] for row in self.rows})


def build(votes: Sequence[Vote], completions: Iterable[Row], *, held_out: float = 0.15, seed: int = 0) -> Dataset:
    """Split by prompt, then make pairs and rows of each person's last verdict on each completion.

    Raises FeedbackError when no vote is about one of `completions`.
    """
    known = {row["uid"]: row for row in completions}
    last = last_verdicts(votes)
    usable = [vote for vote in last if vote.uid in known]
    if not usable:
        raise FeedbackError("feedback", found="no thumbs yet", expected="at least one", next_step="label some tasks")
    by_prompt: dict[str, list[Vote]] = defaultdict(list)
    for vote in usable:
        by_prompt[known[vote.uid]["prompt_id"]].append(vote)
    splits = split_prompts(list(by_prompt), held_out, seed)
    counts: Counter[str] = Counter(
        {
            "votes": len(last),
            "votes_replaced_by_a_later_one": len(votes) - len(last),
            "votes_on_unknown_completions": len(last) - len(usable),
        }
    )
    pairs: list[Row] = []
    rows_by_prompt: list[list[Row]] = []
    for prompt_id in sorted(by_prompt):
        common = {"prompt_id": prompt_id, "split": splits[prompt_id]}
        made = pairing.pairs(by_prompt[prompt_id], known, counts)
        pairs += [common | pair for pair in made]
        rows_by_prompt.append([common | row for row in _rows(by_prompt[prompt_id], known, counts)])
    interleaved = [row for rank in zip_longest(*rows_by_prompt) for row in rank if row is not None]
    counts.update({"pairs": len(pairs), "rows": len(interleaved)})
    return Dataset(pairs, interleaved, dict(counts))


def split_prompts(prompt_ids: list[str], held_out: float, seed: int) -> dict[str, str]:
    """train or held_out for each prompt, by a seeded hash; both sides hold a prompt when there are two or more."""
    ranked = sorted(prompt_ids, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest())
    count = min(max(round(len(ranked) * held_out), 1), len(ranked) - 1) if len(ranked) > 1 and held_out > 0 else 0
    return {name: "held_out" if rank < count else "train" for rank, name in enumerate(ranked)}


def _rows(votes: list[Vote], known: dict[str, Row], counts: Counter[str]) -> list[Row]:
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
