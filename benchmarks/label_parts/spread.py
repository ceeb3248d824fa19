"""How the tasks differ: the spread of each truth over the answers, and what judges that know little are right on.

Such judges are the longer answer, another task's truth, a head on words that learned from the truth of 1,000 pairs, and
the mean worth of an answer over all prompts.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from label_parts import material, real
from label_parts.features import Row
from label_parts.material import REAL, SIMULATED, Pair
from label_parts.people import told_apart
from label_parts.tasks import TASKS, asked, kind_of

PAIRS = 1000
OFTEN = 5  # answers with a word that the head on words knows


def rows(out: Path, runs: list[Path]) -> list[Row]:
    """A row for each task."""
    answers = material.answers(out, tuple(runs))
    texts = [row["completion"] for row in answers]
    values = {
        name: np.array([task.truth(row["prompt"], row["completion"]) for row in answers])
        for name, task in TASKS.items()
    }
    length = np.array([len(text.split()) for text in texts], dtype=float)
    prompts = [row["prompt_id"] for row in answers]
    known, apart = ([n for n, row in enumerate(answers) if row["held_out"] == held] for held in (False, True))
    kinds, shares = by_kind(answers, apart)
    unread = np.zeros(len(answers))
    unread[apart] = kinds @ shares
    found: list[Row] = []
    for name in SIMULATED:
        truth = values[name]
        test, train = (told_apart(prompts, truth, some) for some in (apart, known))
        judges = {
            "longer": length,
            "shorter sentences": -_sentence(texts),
            "words": words(texts, train, prompts, known),
        }
        judges |= {f"truth of {other}": values[other] for other in SIMULATED if other != name}
        found.append(
            {
                "task": name,
                "answers": len(answers),
                "mean": float(truth.mean()),
                "sd": float(truth.std(ddof=1)),
                "values": len(set(np.round(truth, 6))),
                "largest_share_of_one_value": max(Counter(np.round(truth, 6)).values()) / len(truth),
                "thumbs_up_without_mood": float((truth > TASKS[name].middle).mean()),
                "told_apart": len(test) / len(told_apart(prompts, np.arange(len(truth)), apart)),
                "test_pairs": len(test),
                "right": {who: right(said, test) for who, said in judges.items()},
                "right, prompt unread": right(unread, test) if name == "asked" else None,
            }
        )
    between = np.corrcoef(kinds.T).round(2).tolist()
    differ = float((np.ptp(kinds, 1) > 1e-6).mean())
    found.append({"task": "asked", "correlation between kinds": between, "share worth different things": differ})
    for name in REAL:
        if not (missing := real.there(name)):
            of_real, pairs, counts = real.read(name)
            test = real.test_pairs(of_real, pairs)
            long = np.array([len(row["completion"].split()) for row in of_real], dtype=float)
            votes = len(real.votes(of_real, pairs, 0))
            found.append(
                {
                    "task": name,
                    **counts,
                    "training_votes": votes,
                    "test_pairs": len(test),
                    "right": {"longer": right(long, test)},
                }
            )
        else:
            print(missing)
    return found


def by_kind(answers: list[Row], some: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """((some, 3), (3,)): the worth of some answers in `asked`, averaged over all prompts of a kind; shares of kinds."""
    prompts = sorted({row["prompt"] for row in answers})
    kinds = {kind: [prompt for prompt in prompts if kind_of(prompt) == kind] for kind in ("trouble", "open", "closed")}
    texts = [answers[number]["completion"] for number in some]
    worth = [[np.mean([asked(prompt, text) for prompt in of]) for of in kinds.values()] for text in texts]
    return np.array(worth), np.array([len(of) / len(prompts) for of in kinds.values()])


def right(said: np.ndarray, pairs: list[Pair]) -> float:
    """The share of the pairs (better, worse) that scores order right; a tie counts a half."""
    return float(np.mean([(said[a] > said[b]) + 0.5 * (said[a] == said[b]) for a, b in pairs]))


def words(texts: list[str], pairs: list[Pair], prompts: list[str], known: list[int]) -> np.ndarray:
    """Scores of a head on which words are in an answer, of the true labels of PAIRS pairs."""
    from trueup.training import frozen_head

    bags = [set(re.findall(r"[a-z']+|[.,!?]", text.lower())) for text in texts]
    often = sorted(word for word, count in Counter(w for n in known for w in bags[n]).items() if count >= OFTEN)
    there = torch.tensor([[float(word in bag) for word in often] for bag in bags])
    features, _, _ = frozen_head.standard(there)
    some = random.Random(0).sample(pairs, min(PAIRS, len(pairs)))  # noqa: S311 - no secret
    made = {"weight": 1.0, "scale": 1.0, "soft": 1.0, "person": -1, "up": 0}
    rows = [
        {"id": f"{prompts[a]}/{n}", "chosen_ids": [a], "rejected_ids": [b], **made} for n, (a, b) in enumerate(some)
    ]
    labels, used = frozen_head.labels_of(rows)
    at = features[[ids[0] for ids in used]]
    head = frozen_head.fit(at, labels, 0, frozen_head.best(frozen_head.cross_validated(at, labels, 0, 0)))
    scores: np.ndarray = (features @ head).numpy()
    return scores


def _sentence(texts: list[str]) -> np.ndarray:
    """The mean number of words in a sentence of each text."""
    return np.array([len(text.split()) / max(1, len(re.findall(r"[.!?](\s|$)", text))) for text in texts])
