"""Simulated people who compare answers: some with the demo's hidden taste and a mood of the moment, some at random."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from trueup.demo import hidden_preference, simulate
from trueup.feedback.connection import Connection

MOOD = 0.45  # standard deviation of what the moment adds to an answer's worth, as in the demo
NOBODY = Connection(url="", token="")  # these annotators judge here, without a server
Pair = tuple[int, int]


def worth(texts: Sequence[str]) -> np.ndarray:
    """What each answer is worth in truth."""
    return np.array([hidden_preference.score(text) for text in texts])


def told_apart(prompts: Sequence[str], values: np.ndarray, rows: Sequence[int]) -> list[Pair]:
    """(better, worse) of each two of the `rows` that answer one prompt and differ in truth."""
    by_prompt: dict[str, list[int]] = {}
    for row in rows:
        by_prompt.setdefault(prompts[row], []).append(row)
    return [
        (a, b) if values[a] > values[b] else (b, a)
        for some in by_prompt.values()
        for a, b in combinations(some, 2)
        if values[a] != values[b]
    ]


class People:
    """Three people; person 2 answers at random, and the others like an answer by its worth and their mood."""

    def __init__(self, values: np.ndarray, seed: int, mood: float = MOOD) -> None:
        self.draw = np.random.default_rng(seed)
        self.seen = values + self.draw.normal(0, mood, (3, len(values))) if mood else np.stack([values] * 3)

    def prefers_first(self, person: int, first: int, second: int) -> bool:
        """Whether a person prefers the first of two answers."""
        if person == 2:
            return bool(self.draw.random() < 0.5)
        return bool(self.seen[person, first] > self.seen[person, second])


def demo_votes(completions: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """{uid, annotator, up} of the demo's three simulated annotators, drawn and seated as `trueup demo` does.

    One annotator a prompt in turn, and all three on every fifth prompt.
    """
    draw = np.random.default_rng(seed)
    people = []
    for name in simulate.NAMES:
        threshold, noise = 0.5 + draw.uniform(-0.2, 0.2), MOOD + draw.uniform(-0.05, 0.05)
        people.append(simulate.SimulatedAnnotator(name, NOBODY, name, threshold, noise, seed))
    prompts: dict[str, int] = {}
    found = []
    for row in completions:
        number = prompts.setdefault(row["prompt_id"], len(prompts))
        everybody = number % simulate.OVERLAP == 0
        for person in people if everybody else [people[number % len(people)]]:
            up = person.likes(row["uid"], row["completion"])
            found.append({"uid": row["uid"], "annotator": person.name, "up": up})
    return found


def one_coin(votes: Sequence[Sequence[tuple[int, bool]]], rounds: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """(probability that the first answer is better, of each pair; how often each person is right), by EM.

    The model of Dawid and Skene (1979) with one accuracy for each person, as both answers of a pair are alike to it;
    `votes` holds for each pair (person, whether the first was preferred). Each accuracy has a prior of two votes.
    """
    people = 1 + max(person for some in votes for person, _ in some)
    right = np.full(people, 0.7)
    first = np.full(len(votes), 0.5)
    for _ in range(rounds):
        odds = np.log(right / (1 - right))
        first = np.array([1 / (1 + np.exp(-sum(odds[p] if up else -odds[p] for p, up in some))) for some in votes])
        agree, total = np.ones(people), np.full(people, 2.0)
        for some, q in zip(votes, first, strict=True):
            for person, up in some:
                agree[person] += q if up else 1 - q
                total[person] += 1
        right = np.clip(agree / total, 0.5, 0.99)
    return first, right
