"""Drawing one token per row from logits, cheaply: a vocabulary of 49k makes the usual multinomial the slowest part."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """One token per row, greedy for temperature 0, and its log-probability in nats: (rows,), (rows,).

    That is under the temperature (1 when greedy) and before top-p. `logits` is (rows, vocabulary) in fp32, `uniform`
    (rows,) in [0, 1).
    """
    probabilities = torch.softmax(logits if temperature in (0, 1) else logits / temperature, -1)
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        tokens = _inverted(nucleus(probabilities, top_p) if top_p < 1 else probabilities, uniform)
    return tokens, probabilities.gather(1, tokens[:, None])[:, 0].log()


def _inverted(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Each row's distribution function, inverted at `uniform`. Two levels: the block of 256 tokens in which the running
    sum passes the number drawn, then the token within it.
    """
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


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of tokens whose probabilities reach `top_p` (Holtzman et al. 2020), zero the others."""
    ordered, order = probabilities.sort(-1, descending=True)
    kept = ordered * (ordered.cumsum(-1) - ordered < top_p)
    return torch.zeros_like(probabilities).scatter(-1, order, kept)
