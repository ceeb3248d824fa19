"""What to label next: prompts on which heads disagree, prompts unlike those labelled so far, or prompts at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from label_parts.features import Answers
from label_parts.heads import Labels, accuracy, head_of, standard
from label_parts.people import MOOD, told_apart, worth
from trueup.training import frozen_head

ANSWERS = 3  # to a prompt that are shown together
BUDGETS = (15, 30, 60, 120)  # prompts labelled, three votes each
STEP = 15  # prompts that are asked for at once
HEADS = 8
PENALTY = 0.003  # of the heads that disagree
Row = dict[str, Any]
Unit = list[int]


class Pool:
    """Prompts with three answers each, the thumbs of one of three people on them, and features."""

    def __init__(self, answers: Answers, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.features = standard(answers.states, [not one for one in answers.held_out])
        self.prompts, values = answers.prompts, worth(answers.texts)
        rows = [i for i, held in enumerate(answers.held_out) if not held]
        by_prompt: dict[str, list[int]] = {}
        for row in self.draw.permutation(rows):
            by_prompt.setdefault(self.prompts[row], []).append(int(row))
        self.units: list[Unit] = [
            some[i : i + ANSWERS] for some in by_prompt.values() for i in range(0, len(some) - ANSWERS + 1, ANSWERS)
        ]
        self.draw.shuffle(self.units)
        self.test = told_apart(self.prompts, values, [i for i, held in enumerate(answers.held_out) if held])
        thresholds = 0.5 + self.draw.uniform(-0.2, 0.2, 3)
        mood = self.draw.normal(0, MOOD, len(values))
        self.up = [(values + mood > threshold) for threshold in thresholds]

    def labels(self, chosen: list[int]) -> Labels:
        """What people said of the chosen units, as pairs and thumbs; the unit's number says who judged it."""
        found = Labels()
        for number in chosen:
            person, unit = number % 3, self.units[number]
            ups = [row for row in unit if self.up[person][row]]
            downs = [row for row in unit if not self.up[person][row]]
            for up in ups:
                for down in downs:
                    found.pair(up, down, weight=1 / (len(ups) * len(downs)))
            for row in unit:
                found.thumb(row, person, bool(self.up[person][row]))
        return found


def at_random(pool: Pool, chosen: list[int], left: list[int]) -> list[int]:
    return left


def by_disagreement(pool: Pool, chosen: list[int], left: list[int]) -> list[int]:
    """The units whose pairs the heads, each trained on a bootstrap of the labelled units, order most differently."""
    if not chosen:
        return left
    heads = []
    for _ in range(HEADS):
        some = [chosen[i] for i in pool.draw.integers(len(chosen), size=len(chosen))]
        found = frozen_head.fit(pool.features, pool.labels(some).made(pool.prompts), 3, PENALTY)
        heads.append(found[: pool.features.shape[1]])
    scores = pool.features @ torch.stack(heads, 1)  # (answers, heads)
    return sorted(left, key=lambda number: -_disagreement(scores[pool.units[number]]))


def _disagreement(scores: Tensor) -> float:
    """The mean over pairs of p (1 - p), p the share of heads that prefer the first; `scores` is (answers, heads)."""
    first, second = torch.combinations(torch.arange(len(scores))).T
    share = (scores[first] > scores[second]).float().mean(1)
    return float((share * (1 - share)).mean())


def by_diversity(pool: Pool, chosen: list[int], left: list[int]) -> list[int]:
    """Farthest first (Gonzalez 1985): each time the unit whose mean features are farthest from all chosen so far."""
    centers = torch.stack([pool.features[unit].mean(0) for unit in pool.units])
    found = list(chosen) or [left[0]]
    near = torch.cdist(centers, centers[found]).amin(1)
    added = [] if chosen else [left[0]]
    while len(added) < STEP:
        near[found] = -1
        best = int(near.argmax())
        added.append(best)
        found.append(best)
        near = torch.minimum(near, torch.cdist(centers, centers[[best]])[:, 0])
    return added


def by_both(pool: Pool, chosen: list[int], left: list[int]) -> list[int]:
    """By disagreement, a prompt once in each step, so that the step is not all of one kind."""
    first: dict[str, int] = {}
    for number in by_disagreement(pool, chosen, left):
        first.setdefault(pool.prompts[pool.units[number][0]], number)
    return list(first.values())


ORDERS: dict[str, Callable[[Pool, list[int], list[int]], list[int]]] = {
    "random": at_random,
    "disagreement of heads": by_disagreement,
    "diversity of prompts": by_diversity,
    "disagreement, each prompt once": by_both,
}


def run(answers: Answers, seed: int) -> list[Row]:
    """Rows {order, votes, accuracy, seed} of one seed, the same pool and people for every order."""
    rows: list[Row] = []
    for order, select in ORDERS.items():
        pool, chosen = Pool(answers, seed), []
        while len(chosen) < max(BUDGETS):
            taken = set(chosen)
            chosen += select(pool, chosen, [i for i in range(len(pool.units)) if i not in taken])[:STEP]
            if len(chosen) in BUDGETS:
                head = head_of(pool.features, pool.prompts, pool.labels(chosen), seed)
                found = accuracy(pool.features, head, pool.test)
                rows.append({"order": order, "votes": ANSWERS * len(chosen), "accuracy": found, "seed": seed})
    return rows
