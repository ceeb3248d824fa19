"""From hidden states to log-probabilities, without ever holding the logits of a whole vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trueup.cpu import kernels, precision
from trueup.errors import ModelError

# logits in memory at once, times 4 bytes: few enough to stay in a processor's cache
CHUNK_TOKENS = 1024
VOCABULARY_BLOCK = 2048


class _TokenLogps(torch.autograd.Function):
    """log p(y) and the entropy of softmax(W h / temperature), a block of tokens and vocabulary at a time.

    The softmax is accumulated online (Milakov and Gimelshein 2018, algorithm 3), and so is its mean of W's rows: W is
    frozen and each log p is one number, so that its whole gradient is one vector, d log p(y) / dh =
    (W_y - sum_v p_v W_v) / temperature. Only that vector is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        with_gradient = ctx.needs_input_grad[0]
        logps, entropies, gradients = [], [], []
        for h, y in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
            logp, entropy, expected = _softmax(h, weight, y, temperature, with_entropy, with_gradient)
            logps.append(logp)
            entropies.append(entropy)
            if with_gradient:
                gradients.append((weight[y].float() - expected) / temperature)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden.dtype
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logps), entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropy: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_logps.unsqueeze(-1)).to(ctx.dtype), None, None, None, None


def _softmax(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of softmax(W h / temperature): log p of the targets and the entropy, (N,) each, and the mean of W's rows, (N, H);
    fp32. The last two are zeros where they are not asked for.

    A target's logit is that of its block: computed apart it would be rounded otherwise than the normalizer, and in bf16
    p could exceed 1.
    """
    largest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
    chosen, normalizer, weighted = (torch.zeros_like(largest) for _ in range(3))
    expected = torch.zeros(hidden.shape, device=hidden.device)
    inputs = _Inputs(hidden)
    for number, rows in enumerate(torch.split(weight, VOCABULARY_BLOCK)):
        rows = rows.to(hidden.dtype)
        logits = inputs.logits(rows)
        if temperature != 1:
            logits.div_(temperature)
        here = (targets - number * VOCABULARY_BLOCK).unsqueeze(-1)
        inside = (here >= 0) & (here < len(rows))
        chosen = torch.where(inside, logits.gather(-1, here.clamp(0, len(rows) - 1)), chosen)
        raw = logits.clone() if with_entropy else logits
        largest, fallen, unscaled = _rescaled(largest, logits)
        normalizer.mul_(fallen).add_(unscaled.sum(-1, keepdim=True))
        if with_entropy:
            weighted.mul_(fallen).add_(torch.linalg.vecdot(unscaled, raw).unsqueeze(-1))
        if with_gradient:
            expected.mul_(fallen).add_(unscaled.to(rows.dtype) @ rows)
    log_z = largest + normalizer.log()
    entropy = log_z - weighted / normalizer if with_entropy else weighted
    return (chosen - log_z)[:, 0], entropy[:, 0], expected.div_(normalizer)


class _Inputs:
    """Hidden states (N, H), ready to be multiplied by blocks of the output layer.

    bf16 leaves a logit of 20 uncertain by 0.06; where a kernel multiplies bf16 tiles on a CPU its sums stay fp32.
    """

    def __init__(self, hidden: Tensor) -> None:
        self.hidden, self.columns = hidden, None
        if hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16 and precision.has_tiles():
            missing = kernels.padded(len(hidden)) - len(hidden)
            self.columns = functional.pad(hidden.float().T, (0, missing)).contiguous()

    def logits(self, rows: Tensor) -> Tensor:
        """Of some of the vocabulary, (V', H) -> (N, V') in fp32."""
        if self.columns is None or not kernels.fits(rows):
            return (self.hidden @ rows.T).float()
        logits = self.columns.new_empty(self.columns.shape[1], len(rows))
        kernels.Product(rows, transposed=True)(self.columns, self.columns[:0], logits)
        return logits[: len(self.hidden)]


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


def kl(hidden: Tensor, other: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(l) || softmax(l')) of N tokens in nats, exact, fp32: (N, H), (N, H), (V, H) -> (N,).

    With logits l = W h / temperature and l' = W h' / temperature: sum_v p_v (l_v - l'_v) - log Z + log Z', accumulated
    over blocks of the vocabulary; where rounding leaves less than 0, 0.
    """
    parts = zip(torch.split(hidden, CHUNK_TOKENS), torch.split(other, CHUNK_TOKENS), strict=True)
    return torch.cat([_kl(h, o, weight, temperature) for h, o in parts])


def _kl(hidden: Tensor, other: Tensor, weight: Tensor, temperature: float) -> Tensor:
    largest, largest_other = (torch.full((len(hidden), 1), -torch.inf, device=hidden.device) for _ in range(2))
    normalizer, normalizer_other, difference = (torch.zeros_like(largest) for _ in range(3))
    of_one, of_other = _Inputs(hidden), _Inputs(other)
    for rows in torch.split(weight, VOCABULARY_BLOCK):
        rows = rows.to(hidden.dtype)
        logits, logits_other = of_one.logits(rows) / temperature, of_other.logits(rows) / temperature
        apart = logits - logits_other
        largest, fallen, unscaled = _rescaled(largest, logits)
        difference.mul_(fallen).add_(torch.linalg.vecdot(unscaled, apart).unsqueeze(-1))
        normalizer.mul_(fallen).add_(unscaled.sum(-1, keepdim=True))
        largest_other, fallen, unscaled = _rescaled(largest_other, logits_other)
        normalizer_other.mul_(fallen).add_(unscaled.sum(-1, keepdim=True))
    log_z, log_z_other = largest + normalizer.log(), largest_other + normalizer_other.log()
    return (difference / normalizer - log_z + log_z_other).squeeze(-1).clamp_(min=0)


def _rescaled(largest: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logit so far, the factor of what was summed before, and exp of `logits` (overwritten) below it."""
    so_far, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
    return largest, (so_far - largest).exp_(), logits.sub_(largest).exp_()
