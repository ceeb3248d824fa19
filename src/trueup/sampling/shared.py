"""Sampling on several ranks: each completes its share of the prompts, by the random numbers they have among all.

Our decoders then give the completions of one process, but for rounding; transformers' `generate` draws for a batch at
once, and gives others.
"""

from __future__ import annotations

from trueup import ranks
from trueup.sampling.types import ALL, Generated, Run, Share


class Shared:
    """`run` for this rank's share of the prompts, and the others' completions of theirs."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def ran(self) -> str:
        """By what it did, once it did."""
        return self.run.ran

    def __call__(self, prompts: list[list[int]], seed: int, share: Share = ALL) -> list[Generated]:
        """A completion of each prompt, in the order given, on every rank."""
        return ranks.by_share(prompts, lambda own: self.run(own, seed, (ranks.this(), ranks.count())))


def on_ranks(run: Run) -> Run:
    """`run`, shared where there are several ranks."""
    return run if ranks.count() == 1 else Shared(run)
