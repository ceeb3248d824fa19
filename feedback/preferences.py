"""Thumbs become training data: pairs for reward and DPO, single rows for KTO, each with its weight."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from trueup.errors import FeedbackError

Row = dict[str, Any]


@dataclass(frozen=True)
class Vote:
    """One thumb of one annotator on one completion."""

    uid: str
    annotator: str
    up: bool


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
    """Split by prompt, then make pairs and rows. Raises FeedbackError when there is no thumb at all."""
    if not votes:
        raise FeedbackError("feedback", found="no thumbs yet", expected="at least one", next_step="label some tasks")
    known = {row["uid"]: row for row in completions}
    usable = [vote for vote in votes if vote.uid in known]
    by_prompt: dict[str, list[Vote]] = defaultdict(list)
    for vote in usable:
        by_prompt[known[vote.uid]["prompt_id"]].append(vote)
    splits = split_prompts(list(by_prompt), held_out, seed)
    counts: Counter[str] = Counter({"votes": len(votes), "votes_on_unknown_completions": len(votes) - len(usable)})
    pairs: list[Row] = []
    rows_by_prompt: list[list[Row]] = []
    for prompt_id in sorted(by_prompt):
        common = {"prompt_id": prompt_id, "split": splits[prompt_id]}
        made = _pairs(by_prompt[prompt_id], known, counts)
        pairs += [common | pair for pair in made]
        rows_by_prompt.append([common | row for row in _rows(by_prompt[prompt_id], known, counts)])
    interleaved = [row for rank in zip_longest(*rows_by_prompt) for row in rank if row is not None]
    counts |= Counter({"pairs": len(pairs), "rows": len(interleaved)})
    return Dataset(pairs, interleaved, dict(counts))


def votes_of(judged: Iterable[Row]) -> tuple[list[Vote], list[Row]]:
    """(votes, completions) of preferences that exist already, for `build`.

    Rows of {prompt_id, messages, completion, rejected, votes: (for, against)}; `rejected` is None for thumbs. Each
    voter of each row is a person of its own: nothing says that two rows were judged by the same one.
    """
    votes: list[Vote] = []
    completions: dict[str, Row] = {}

    def known(row: Row, text: str) -> str:
        uid = hashlib.sha256(f"{row['prompt_id']}\0{text}".encode()).hexdigest()[:20]
        completions[uid] = {"uid": uid, "prompt_id": row["prompt_id"], "messages": row["messages"], "completion": text}
        return uid

    for number, row in enumerate(judged):
        uid = known(row, row["completion"])
        other = known(row, row["rejected"]) if row["rejected"] is not None else None
        ups, downs = row["votes"]
        for voter in range(ups + downs):
            up, annotator = voter < ups, f"{number}.{voter}"
            votes.append(Vote(uid, annotator, up))
            if other is not None:
                votes.append(Vote(other, annotator, not up))
    return votes, list(completions.values())


def split_prompts(prompt_ids: list[str], held_out: float, seed: int) -> dict[str, str]:
    """train or held_out for each prompt, by a seeded hash; both sides hold a prompt when there are two or more."""
    ranked = sorted(prompt_ids, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest())
    count = min(max(round(len(ranked) * held_out), 1), len(ranked) - 1) if len(ranked) > 1 and held_out > 0 else 0
    return {name: "held_out" if rank < count else "train" for rank, name in enumerate(ranked)}


def _pairs(votes: list[Vote], known: dict[str, Row], counts: Counter[str]) -> list[Row]:
    """Up x down of one prompt, within one annotator where possible, together weighing 1."""
    mine: dict[str, dict[str, bool]] = defaultdict(dict)
    tally: Counter[str] = Counter()
    for vote in votes:
        mine[vote.annotator][vote.uid] = vote.up
        tally[vote.uid] += 1 if vote.up else -1
    found: Counter[tuple[str, str]] = Counter()
    for thumbs in mine.values():
        ups, downs = [u for u, up in thumbs.items() if up], [u for u, up in thumbs.items() if not up]
        found.update((up, down) for up in ups for down in downs)
    if not found:
        ups, downs = [u for u, n in tally.items() if n > 0], [u for u, n in tally.items() if n < 0]
        found.update((up, down) for up in ups for down in downs)
        counts["prompts_paired_across_annotators"] += bool(found)
    votes_for: dict[tuple[str, str], int] = {}
    for (chosen, rejected), times in sorted(found.items()):
        opposed = found.get((rejected, chosen), 0)
        if known[chosen]["completion"] == known[rejected]["completion"]:
            counts["pairs_of_identical_texts"] += 1
        elif times > opposed:
            votes_for[(chosen, rejected)] = times - opposed
        else:
            counts["pairs_contradicted"] += 1
    counts["prompts_without_pairs"] += not votes_for
    return [
        {
            "prompt": known[chosen]["messages"],
            "chosen": known[chosen]["completion"],
            "rejected": known[rejected]["completion"],
            "weight": 1 / len(votes_for),
            "chosen_uid": chosen,
            "rejected_uid": rejected,
        }
        for chosen, rejected in votes_for
    ]


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
