"""How far a way of loading an export is from the model that was trained: KL and greedy agreement, token by token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trueup import cpu
from trueup.chat.batch import pad
from trueup.export.texts import Row
from trueup.models import causal, head
from trueup.models.head import OutputLayer

BATCH_TOKENS = 4096  # of the conversations in a forward pass, padding included; a CPU computes once what they share
CHUNK = 128  # positions whose logits are in memory at once


@dataclass(frozen=True)
class Distance:
    """Of one model from another, on the same answers."""

    kl: float  # KL(trained || this one), mean over the answers' tokens, nats per token; rounding below 0 is 0
    agreement: float  # share of the answers' tokens at which both would choose the same one


@dataclass(frozen=True)
class Trained:
    """The model that was trained, as what it says after each token of the answers. Its weights are not kept."""

    rows: list[Row]
    pad_id: int
    states: Tensor  # (answers' tokens, H): what predicts each of them, the rows one after another
    layer: OutputLayer  # what makes logits of them
    rounding: Distance | None = None  # of the same model in 16-bit arithmetic; None where nothing else was possible

    @classmethod
    def of(cls, model: Any, rows: list[Row], pad_id: int) -> Trained:
        """Read the answers with the active adapter of `model`, in fp32 arithmetic where that is possible.

        16-bit arithmetic alone moves a model by more than its weights are rounded by, and differently each time that
        they are loaded in another way.
        """
        usual, was = _states(model, rows, pad_id), causal.output_layer(model)
        layer = replace(was, weight=was.weight.detach(), bias=None if was.bias is None else was.bias.detach())
        if usual.dtype == torch.float32 or not cpu.accelerate(model, in_fp32=True):
            return cls(rows, pad_id, usual, layer)
        exact = cls(rows, pad_id, _states(model, rows, pad_id), layer)
        return replace(exact, rounding=exact._distance(usual, was))

    def distance(self, model: Any) -> Distance:
        """Of another model of the same vocabulary, with its active adapter, in the same arithmetic. Exact over the
        vocabulary."""
        if self.states.dtype == torch.float32:
            cpu.accelerate(model, in_fp32=True)
        return self._distance(_states(model, self.rows, self.pad_id), causal.output_layer(model))

    def _distance(self, others: Tensor, layer: OutputLayer) -> Distance:
        kl = head.kl(self.states, others, self.layer, layer)
        same = [
            self.layer.logits(mine).argmax(-1) == layer.logits(theirs).argmax(-1)
            for mine, theirs in zip(torch.split(self.states, CHUNK), torch.split(others, CHUNK), strict=True)
        ]
        return Distance(max(kl.mean().item(), 0.0), torch.cat(same).float().mean().item())

    def distance_of_logps(self, logps: Iterable[Tensor]) -> Distance:
        """Of a model that another program reads: for each row, log p of every token of the vocabulary after each of
        its tokens, (tokens, V)."""
        kl, same = [], []
        per_row = torch.split(self.states, [len(answer) for _, answer in self.rows])
        for (prompt, answer), states, found in zip(self.rows, per_row, logps, strict=True):
            theirs = found[len(prompt) - 1 : len(prompt) + len(answer) - 1].float()
            mine = self.layer.logits(states)
            theirs = theirs[:, : mine.shape[1]].to(mine.device).log_softmax(-1)
            logs = mine.log_softmax(-1)
            kl.append((logs.exp() * (logs - theirs)).sum(-1))
            same.append(mine.argmax(-1) == theirs.argmax(-1))
        return Distance(max(torch.cat(kl).mean().item(), 0.0), torch.cat(same).float().mean().item())


@torch.no_grad()
def _states(model: Any, rows: list[Row], pad_id: int) -> Tensor:
    """What predicts each token of the answers, (answers' tokens, H)."""
    return torch.cat([causal.labelled_states(model, batch) for batch in _batches(rows, pad_id)])


def _batches(rows: list[Row], pad_id: int) -> Iterator[dict[str, Tensor]]:
    batch: list[Row] = []
    for row in rows:
        longest = max(len(prompt) + len(answer) for prompt, answer in (*batch, row))
        if batch and longest * (len(batch) + 1) > BATCH_TOKENS:
            yield pad(batch, pad_id)
            batch = []
        batch.append(row)
    yield pad(batch, pad_id)
