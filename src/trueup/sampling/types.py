"""What is asked of a sampler, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

# auto: our decoder | merged: on a copy of base plus adapter in 16 bits | generate: transformers' own | vllm: on a GPU
Engine = Literal["auto", "merged", "generate", "vllm"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the sampler; temperature 0 means greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int
    seed: int
    engine: Engine = "auto"
    max_mismatch: float = 0.1  # nats per token: how far an engine's log-probabilities may be from the trainer's


@dataclass(frozen=True)
class Generated:
    """One completion: token ids, the end token included, and the log-probability (nats) of each as it was sampled.

    That is under the sampling temperature (1 when greedy) and before top-p.
    """

    ids: list[int]
    logps: list[float]


class Run(Protocol):
    """What completes prompts (token ids) under a seed; `ran` says by what it did, in words for the record."""

    ran: str

    def __call__(self, prompts: list[list[int]], seed: int) -> list[Generated]:
        """A completion of each prompt, in the order given."""


@dataclass(frozen=True)
class Sampled:
    """One completion: its text without the end token, its token ids with it, log-probability in nats, why it ended."""

    text: str
    ids: list[int]
    logp: float
    finish: str  # eos: it ended by itself | length: it was cut at max_new_tokens

    @property
    def num_tokens(self) -> int:
        return len(self.ids)
