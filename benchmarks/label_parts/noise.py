"""One of three people answers at random: what each way to train on their votes keeps of what clean labels give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from label_parts.features import Answers
from label_parts.heads import Labels, accuracy, head_of, standard
from label_parts.people import MOOD, Pair, People, one_coin, told_apart, worth

NUM_PAIRS = 2000
Votes = list[tuple[int, bool]]  # (person, whether the answer that is better in truth was preferred)
Row = dict[str, Any]


def _label(make: Callable[[Labels, int, int, float], None]) -> Callable[[list[Pair], list[float]], Labels]:
    """A way to learn from pairs by the posterior margin 2q - 1 of each; ties give nothing."""

    def labels(pairs: list[Pair], margins: list[float]) -> Labels:
        found = Labels()
        for (better, worse), margin in zip(pairs, margins, strict=True):
            if margin:
                chosen, rejected = (better, worse) if margin > 0 else (worse, better)
                make(found, chosen, rejected, abs(margin))
        return found

    return labels


WAYS: dict[str, Any] = {
    "hard majority": _label(lambda found, c, r, m: found.pair(c, r)),
    "weight": _label(lambda found, c, r, m: found.pair(c, r, weight=m)),
    "two-sided soft": _label(lambda found, c, r, m: found.pair(c, r, label=(1 + m) / 2)),
    "scaled margin": _label(lambda found, c, r, m: found.pair(c, r, scale=m)),
}


def counted(votes: list[Votes], prior: float) -> list[float]:
    """2q - 1 of each pair: of a Beta(prior, prior) before its votes, (for - against) / (votes + 2 prior)."""
    return [sum(1 if up else -1 for _, up in some) / (len(some) + 2 * prior) for some in votes]


def designs(num: int) -> dict[str, list[int]]:
    """How many people judge each of some pairs: `num` votes in all, and `num` pairs by all three."""
    third, mixed = round(num / 3), round(num / 1.4)
    return {
        f"{third} pairs x 3": [3] * third,
        f"{mixed} pairs, a fifth x 3": [3 if i % 5 == 0 else 1 for i in range(mixed)],
        f"{num} pairs x 3": [3] * num,
    }


def run(answers: Answers, seed: int, mood: float = MOOD) -> list[Row]:
    """Rows {design, way, votes, accuracy} of one seed."""
    features = standard(answers.states, [not one for one in answers.held_out])
    values = worth(answers.texts)
    pool = told_apart(answers.prompts, values, [i for i, held in enumerate(answers.held_out) if not held])
    test = told_apart(answers.prompts, values, [i for i, held in enumerate(answers.held_out) if held])
    draw, people = np.random.default_rng(seed), People(values, seed, mood)
    order = [pool[i] for i in draw.permutation(len(pool))]

    def right(labels: Labels) -> float:
        return accuracy(features, head_of(features, answers.prompts, labels, seed), test)

    def said(pair: Pair, persons: list[int]) -> Votes:
        return [(person, people.prefers_first(person, *pair)) for person in persons]

    clean = Labels()
    for better, worse in order[:NUM_PAIRS]:
        clean.pair(better, worse)
    rows = [{"design": f"{NUM_PAIRS} pairs x 1", "way": "clean labels", "votes": NUM_PAIRS, "accuracy": right(clean)}]
    single = [said(pair, [i % 3]) for i, pair in enumerate(order[:NUM_PAIRS])]
    labels = WAYS["hard majority"](order[:NUM_PAIRS], counted(single, 0))
    rows.append(
        {"design": f"{NUM_PAIRS} pairs x 1", "way": "single labels", "votes": NUM_PAIRS, "accuracy": right(labels)}
    )
    for design, judges in designs(NUM_PAIRS).items():
        pairs = order[: len(judges)]
        votes = [
            said(pair, [0, 1, 2] if n == 3 else [i % 3]) for i, (pair, n) in enumerate(zip(pairs, judges, strict=True))
        ]
        first, _ = one_coin(votes)
        margins = {
            "votes": counted(votes, 0),
            "votes, Beta(1, 1)": counted(votes, 1),
            "Dawid-Skene": [float(2 * q - 1) for q in first],
        }
        for source, found in margins.items():
            for way, make in WAYS.items():
                if source == "votes, Beta(1, 1)" and (way == "hard majority" or len(set(judges)) == 1):
                    continue  # the same pairs, and margins that all are the same share of what they were
                made = {"design": design, "way": f"{way}; {source}", "votes": sum(judges)}
                rows.append(made | {"accuracy": right(make(pairs, found))})
    return [row | {"seed": seed, "mood": mood} for row in rows]
