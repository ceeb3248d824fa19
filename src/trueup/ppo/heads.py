"""From hidden states to log-probabilities and to scalars, without ever holding the logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trueup.errors import ModelError

CHUNK_TOKENS = 256  # logits in memory at once: CHUNK_TOKENS x vocabulary x 4 bytes


class _TokenLogps(torch.autograd.Function):
    """log p(y) and the entropy of softmax(W h / temperature), a chunk of tokens at a time.

    W is frozen and each log p is one number, so its whole gradient is one vector: d log p(y) / dh =
    (W_y - sum_v p_v W_v) / temperature. It is computed while the chunk's logits exist, and only that vector is kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logps, entropies, gradients = [], [], []
        for h, y in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
            log_probs = torch.log_softmax((h @ weight.T).float() / temperature, dim=-1)
            probs = log_probs.exp()
            logps.append(log_probs.gather(-1, y.unsqueeze(-1)).squeeze(-1))
            entropies.append(-torch.linalg.vecdot(probs, log_probs))
            if ctx.needs_input_grad[0]:
                expected = probs.to(weight.dtype) @ weight
                gradients.append((weight[y].float() - expected.float()) / temperature)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden.dtype
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logps), entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropy: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_logps.unsqueeze(-1)).to(ctx.dtype), None, None, None


def token_logps(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log p, entropy) of N tokens in nats, fp32: hidden (N, H), frozen weight (V, H), targets (N,) -> (N,), (N,).

    Differentiable in `hidden` through log p alone; PPO on language models has no entropy bonus (Huang et al. 2024).
    """
    if weight.requires_grad:
        raise ModelError("lm_head", found="trainable", expected="frozen: its gradient is not computed here")
    result: tuple[Tensor, Tensor] = _TokenLogps.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return result


def new_value_head(hidden_size: int) -> nn.Linear:
    """A value head that says 0 everywhere: the first advantages are then the rewards themselves."""
    head = nn.Linear(hidden_size, 1, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
