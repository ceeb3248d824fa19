"""Watching a stage from outside: what each optimizer step had for gradients, and from which weights it was taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import plain
import pytest
import torch
import transformers
from torch import Tensor


class Enough(Exception):
    """As many steps as the test wants to see."""


@dataclass
class Step:
    """One optimizer step: weights before it, the summed gradients, and the loss of each micro-batch."""

    weights: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # every sequence that trained, special tokens included


def watch(monkeypatch: pytest.MonkeyPatch, num_steps: int) -> list[Step]:
    """The steps that a `transformers.Trainer` takes from now on; Enough is raised before the one after `num_steps`.

    Gradients are noted before they are clipped.
    """
    steps: list[Step] = []
    plain_step = transformers.Trainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        every = self.args.gradient_accumulation_steps
        if not steps or len(steps[-1].losses) == every:
            if len(steps) == num_steps:
                raise Enough
            steps.append(Step(plain.parameters(model)))
        if isinstance(inputs, dict) and isinstance(inputs.get("input_ids"), Tensor):
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
                steps[-1].texts.append(self.processing_class.decode(ids[mask.bool()]))
        loss = plain_step(self, model, inputs, *args, **kwargs)
        steps[-1].losses.append(float(loss))
        steps[-1].gradients = plain.gradients(model)
        return loss

    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
    return steps


@dataclass
class Update:
    """One call of an optimizer's `step`: the parameters before it, and their gradients (clipped, if they are)."""

    weights: list[Tensor]
    gradients: list[Tensor | None]


def watch_adamw(monkeypatch: pytest.MonkeyPatch, num_steps: int) -> list[Update]:
    """The steps of any torch AdamW from now on; Enough is raised before the one after `num_steps`."""
    updates: list[Update] = []
    plain_step = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(updates) == num_steps:
            raise Enough
        trained = [p for group in self.param_groups for p in group["params"]]
        updates.append(
            Update([p.detach().clone() for p in trained], [None if p.grad is None else p.grad.clone() for p in trained])
        )
        return plain_step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return updates


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], str]]:
    """The ids of every sequence that a tokenizer decodes from now on, and the text they became, in order."""
    seen: list[tuple[list[int], str]] = []
    kind = transformers.PreTrainedTokenizerBase
    plain_decode = kind.decode

    def decode(self: Any, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        text = plain_decode(self, token_ids, *args, **kwargs)
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        if isinstance(text, str):
            seen.append((ids, text))
        else:
            seen.extend((list(row), part) for row, part in zip(ids, text, strict=True))
        return text

    monkeypatch.setattr(kind, "decode", decode)
    return seen
