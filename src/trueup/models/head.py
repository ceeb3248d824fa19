"""From hidden states to log-probabilities, without ever holding the logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueup.errors import ModelError

CHUNK_TOKENS = 256  # logits in memory at once: CHUNK_TOKENS x vocabulary x 4 bytes


class _TokenLogps(torch.autograd.Function):
    """log p(y) and the entropy of softmax(W h / temperature), a chunk of tokens at a time.

    W is frozen and each log p is one number, so its whole gradient is one vector: d log p(y) / dh =
    (W_y - sum_v p_v W_v) / temperature. It is computed while the chunk's logits exist, and only that vector is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        dense = weight.to(hidden.dtype)
        logps, entropies, gradients = [], [], []
        for h, y in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
            logits = (h @ dense.T).float()
            if temperature != 1:
                logits = logits.div_(temperature)
            normalizer = logits.logsumexp(-1, keepdim=True)
            logps.append((logits.gather(-1, y.unsqueeze(-1)) - normalizer).squeeze(-1))
            if ctx.needs_input_grad[0] or with_entropy:
                log_probs = logits.sub_(normalizer)
                probs = log_probs.exp() if with_entropy else log_probs.exp_()
                if with_entropy:
                    entropies.append(-torch.linalg.vecdot(probs, log_probs))
                if ctx.needs_input_grad[0]:
                    expected = probs.to(dense.dtype) @ dense
                    gradients.append((dense[y].float() - expected.float()) / temperature)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden.dtype
        entropy = torch.cat(entropies) if entropies else hidden.new_zeros(len(hidden), dtype=torch.float32)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logps) if logps else hidden.new_zeros(0, dtype=torch.float32), entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropy: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_logps.unsqueeze(-1)).to(ctx.dtype), None, None, None, None


def token_logps(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, *, with_entropy: bool = True
) -> tuple[Tensor, Tensor]:
    """(log p, entropy) of N tokens in nats, fp32: hidden (N, H), frozen weight (V, H), targets (N,) -> (N,), (N,).

    Differentiable in `hidden` through log p alone; PPO on language models has no entropy bonus (Huang et al. 2024).
    Without `with_entropy` the second is zeros. Raises ModelError when the weight is trained.
    """
    if weight.requires_grad and torch.is_grad_enabled():
        raise ModelError("lm_head", found="trainable", expected="frozen: its gradient is not computed here")
    result: tuple[Tensor, Tensor] = _TokenLogps.apply(hidden, weight, targets, temperature, with_entropy)  # type: ignore[no-untyped-call]
    return result
