"""Sampling on several ranks: each completes its share of the prompts."""

from __future__ import annotations

from trueup import ranks
from trueup.sampling.types import Generated, Run

SEED_OF_RANK = 15_485_863  # between the seeds of one rank and the next


def seed_of_rank(seed: int) -> int:
    """A seed of this rank's own, the first rank's being `seed`: equal prompts would otherwise have equal answers."""
    return seed + SEED_OF_RANK * ranks.this()


class Shared:
    """`run` for this rank's share of the prompts, and the others' completions of theirs."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def ran(self) -> str:
        """By what answers were completed."""
        return self.run.ran

    def __call__(self, prompts: list[list[int]], seed: int) -> list[Generated]:
        """A completion of each prompt, in the order given, on every rank."""
        return ranks.by_share(prompts, lambda own: self.run(own, seed_of_rank(seed)))


def on_ranks(run: Run) -> Run:
    """`run`, shared where there are several ranks."""
    return run if ranks.count() == 1 else Shared(run)
