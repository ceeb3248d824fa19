"""Drawing one token a row from logits, cheaply: a vocabulary of 49k makes the usual multinomial the slowest part."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

BLOCK = 256


def draw(logits: Any, uniform: Any, temperature: float, top_p: float) -> Any:
    """One token a row by inverting the distribution function at `uniform`; greedy for temperature 0.

    `logits` is (rows, vocabulary) in fp32, `uniform` (rows,) in [0, 1). Two levels: the block of 256 tokens in which
    the running sum passes the number drawn, then the token within it.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, -1)
    if top_p < 1:
        probabilities = nucleus(probabilities, top_p)
    blocks = functional.pad(probabilities, (0, -probabilities.shape[-1] % BLOCK))
    blocks = blocks.reshape(len(blocks), -1, BLOCK)
    sums = blocks.sum(-1).cumsum(-1)
    target = uniform[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp(max=sums.shape[-1] - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0].cumsum(-1)
    token = torch.searchsorted(inside, target - before, right=True)
    last = (inside < inside[:, -1:]).sum(-1, keepdim=True)  # the last token of the block with any probability
    return (block * BLOCK + torch.minimum(token, last))[:, 0]


def nucleus(probabilities: Any, top_p: float) -> Any:
    """Keep the smallest set of tokens whose probabilities reach `top_p` (Holtzman et al. 2020), zero the others."""
    ordered, order = probabilities.sort(-1, descending=True)
    kept = ordered * (ordered.cumsum(-1) - ordered < top_p)
    return torch.zeros_like(probabilities).scatter(-1, order, kept)
