"""Is what an engine sampled the policy that trains? Its log-probabilities are held against the trainer's forward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trueup.chat.batch import pad
from trueup.models import causal, head
from trueup.sampling.types import Generated, Sampling

NUM_PROVEN = 4  # answers
MOST_TOKENS = 1024  # of a prompt and its answer, so that the proof is never what takes the most memory


@torch.no_grad()
def apart(model: Any, tokenizer: Any, prompts: list[list[int]], done: list[Generated], sampling: Sampling) -> float:
    """The mean |log-probability of the engine - of the trainer|, in nats a token, on a few of the answers.

    The shortest of them where others are too long. The trainer's is that of the active adapter, under autocast on a
    GPU as in training. NaN where nothing can be compared.
    """
    rows = sorted(range(len(done)), key=lambda i: (len(prompts[i]) + len(done[i].ids) > MOST_TOKENS, i))[:NUM_PROVEN]
    found: list[Tensor] = []
    device = next(model.parameters()).device
    layer = causal.output_layer(model)
    for i in rows:
        ids = done[i].ids[: max(MOST_TOKENS - len(prompts[i]), 1)]
        batch = pad([(prompts[i], ids)], tokenizer.pad_token_id)
        states = causal.labelled_states(model, batch)
        right, _ = head.token_logps(
            states, layer, torch.tensor(ids, device=device), sampling.temperature or 1.0, with_entropy=False
        )
        found.append((torch.tensor(done[i].logps[: len(ids)]) - right.float().cpu()).abs())
    return float(torch.cat(found).mean()) if found else math.nan


def fault(apart: float, sampling: Sampling, *, after_top_p: bool = False) -> str:
    """What is wrong with an engine whose log-probabilities are so far off; empty where nothing is.

    `after_top_p`: the engine's are those of the tokens that top-p leaves, larger by up to -log(top_p).
    """
    most = sampling.max_mismatch - (math.log(sampling.top_p) if after_top_p else 0.0)
    if apart <= most:
        return ""
    return (
        f"its log-probabilities and the trainer's differ by {apart:.2f} nats per token, more than the {most:.2f} that "
        "rounding may make"
    )
