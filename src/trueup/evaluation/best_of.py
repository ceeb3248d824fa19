"""Best-of-n: of n answers to a prompt, the one that a reward likes best; and what that can come to at most."""

from __future__ import annotations

from collections.abc import Sequence
from math import log


def several(n: int) -> int:
    """`n`, as a run file says it. Raises ValueError unless it is 0, for off, or at least 2."""
    if n < 0 or n == 1:
        raise ValueError("0, for off, or 2 and more: of one answer there is no best")
    return n


def refuse_greedy(n: int, temperature: float) -> None:
    """Raises ValueError where the best of several answers is wanted that are all the same."""
    if n and temperature == 0:
        raise ValueError(
            f"best_of is {n}, and at temperature 0 all answers to a prompt are the same: set a temperature"
        )


def best(scores: Sequence[float], n: int, keep: int = 1) -> list[int]:
    """The places of the `keep` highest scores of each n in a row, the highest first, the first of equals before others.

    `scores` are (prompts x n,), and the places (prompts x keep,).
    """
    rows = [range(start, start + n) for start in range(0, len(scores), n)]
    return [place for row in rows for place in sorted(row, key=lambda i: -scores[i])[:keep]]


def most_won(n: int) -> float:
    """n / (n + 1): how often the best of n beats one more answer of the same model, by the reward that chose it.

    It is the expected win rate where no two answers have the same reward, since each of the n + 1 answers is as likely
    to be the best as any other; with ties counted half it is less. By another judge it may be anything.
    """
    return n / (n + 1)


def most_kl(n: int) -> float:
    """log n - (n - 1) / n, nats for each answer: how far the best of n is from the model that the n answers are from.

    Exact where no two answers have the same reward and none is likely to come twice (Stiennon et al. 2020), and else
    an upper bound (Beirami et al. 2024, "Theoretical guarantees on the best-of-n alignment policy", theorem 1).
    """
    return log(n) - (n - 1) / n
