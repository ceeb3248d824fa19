"""What the reward model of a run says of answers, by transformers and peft alone."""

from __future__ import annotations

from typing import Any

import plain
import torch

from trueup.run.pipeline import Pipeline


class Rewards:
    """Scores answers, as they were sampled, to a prompt of messages."""

    def __init__(self, run: Pipeline) -> None:
        base, folder = run.run.model.base, run.path("reward")
        self.tokenizer: Any = plain.tokenizer(base)
        self.classifier = plain.classifier(base, folder)
        plain.put(self.classifier, {plain.plain_name(name): tensor for name, tensor in plain.saved(folder).items()})

    def __call__(self, messages: plain.Messages, answers: list[list[int]]) -> list[float]:
        with torch.no_grad():
            return [plain.score_sampled(self.classifier, self.tokenizer, messages, ids).item() for ids in answers]


def order(scores: list[float]) -> list[int]:
    """The places of the scores, the highest first."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def apart(scores: list[float]) -> float:
    """How far the best is above the second best, as a share of what the scores span: rounding may swap what is near."""
    best, second, *_ = sorted(scores, reverse=True)
    return (best - second) / max(best - min(scores), 1e-9)
