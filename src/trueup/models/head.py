"""From hidden states to log-probabilities, without ever holding the logits of a whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trueup.errors import ModelError

# Tokens, and entries of the vocabulary, whose logits are in memory at once, 4 bytes each. On a CPU they are few enough
# to stay in its cache; a GPU needs larger products to be busy, and 34 MB are little beside its weights.
CHUNK_TOKENS = 1024
VOCABULARY_BLOCK = 2048
GPU_VOCABULARY_BLOCK = 8192


Products = Callable[[Tensor], Tensor]  # rows of an output layer, (V', H) -> (N, V') in fp32


def vocabulary_block(device: torch.device) -> int:
    """How many entries of the vocabulary have logits in memory at once on `device`."""
    return GPU_VOCABULARY_BLOCK if device.type == "cuda" else VOCABULARY_BLOCK


def plain_products(hidden: Tensor) -> Products:
    """What multiplies hidden states, (N, H), by rows of an output layer of the same dtype."""
    return lambda rows: multiply(hidden, rows.T)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a b, (N, K) and (K, M) of one dtype -> (N, M) in fp32; on a GPU 16-bit operands are not rounded in between.

    A product that is rounded to bf16 leaves a logit of 20 uncertain by 0.06, and sums of rounded products drift. On a
    CPU, where torch has no such product, `cpu.accelerate` brings one for the logits.
    """
    if a.dtype != torch.float32 and a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


@dataclass(frozen=True)
class OutputLayer:
    """A frozen output layer: z = scale (W h + b), and logits z, or cap x tanh(z / cap) where there is a soft cap.

    `products` prepares N hidden states for multiplication by blocks of W.
    """

    weight: Tensor  # (V, H)
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0
    cap: float | None = None
    products: Callable[[Tensor], Products] = plain_products

    def blocks(self) -> list[_Block]:
        """W and b, `vocabulary_block` rows at a time."""
        size = vocabulary_block(self.weight.device)
        weights = torch.split(self.weight.detach(), size)
        biases = [None] * len(weights) if self.bias is None else torch.split(self.bias.detach(), size)
        return [
            _Block(number * size, rows, bias) for number, (rows, bias) in enumerate(zip(weights, biases, strict=True))
        ]

    def finish(self, products: Tensor, bias: Tensor | None) -> Tensor:
        """Logits of W h, in place: (N, V') -> (N, V')."""
        if bias is not None:
            products.add_(bias)
        if self.scale != 1:
            products.mul_(self.scale)
        return products if self.cap is None else products.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """d logits / d (W h), from the logits."""
        return self.scale if self.cap is None else self.scale * (1 - (logits / self.cap).square())

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, H) -> (N, V) in fp32."""
        products = self.products(hidden)
        return torch.cat([self.finish(products(b.weight.to(hidden.dtype)), b.bias) for b in self.blocks()], -1)


@dataclass(frozen=True)
class _Block:
    """Rows of an output layer and their bias, from row `start` on."""

    start: int
    weight: Tensor
    bias: Tensor | None


class _TokenLogps(torch.autograd.Function):
    """log p(y) and the entropy of softmax(logits / temperature), a block of tokens and vocabulary at a time.

    The softmax is accumulated online (Milakov and Gimelshein 2018, algorithm 3), and so is its mean of W's rows: W is
    frozen and each log p is one number, so that its whole gradient is one vector, d log p(y) / dh =
    (s_y W_y - sum_v p_v s_v W_v) / temperature, with s the slope of each logit. Only that vector is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, layer: OutputLayer, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        with_gradient = ctx.needs_input_grad[0]
        logps, entropies, gradients = [], [], []
        for h, y in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
            logp, entropy, gradient = _softmax(h, layer, y, temperature, with_entropy, with_gradient)
            logps.append(logp)
            entropies.append(entropy)
            gradients.append(gradient)
        if with_gradient:
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
    hidden: Tensor, layer: OutputLayer, targets: Tensor, temperature: float, with_entropy: bool, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of softmax(logits / temperature): log p of the targets and the entropy, (N,) each, and the gradient of log p in
    the hidden states, (N, H); fp32. The last two are zeros where they are not asked for.

    A target's logit is that of its block: computed apart it would be rounded otherwise than the normalizer, and in bf16
    p could exceed 1.
    """
    largest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
    chosen, normalizer, weighted = (torch.zeros_like(largest) for _ in range(3))
    expected = torch.zeros(hidden.shape, device=hidden.device)
    products = layer.products(hidden)
    for block in layer.blocks():
        rows = block.weight.to(hidden.dtype)
        logits = layer.finish(products(rows), block.bias)
        slope = layer.slope(logits) if with_gradient and layer.cap is not None else None
        if temperature != 1:
            logits.div_(temperature)
        here = (targets - block.start).unsqueeze(-1)
        inside = (here >= 0) & (here < len(rows))
        chosen = torch.where(inside, logits.gather(-1, here.clamp(0, len(rows) - 1)), chosen)
        raw = logits.clone() if with_entropy else logits
        largest, fallen, unscaled = _rescaled(largest, logits)
        normalizer.mul_(fallen).add_(unscaled.sum(-1, keepdim=True))
        if with_entropy:
            weighted.mul_(fallen).add_(torch.linalg.vecdot(unscaled, raw).unsqueeze(-1))
        if with_gradient:
            through = unscaled if slope is None else unscaled.mul_(slope)
            expected.mul_(fallen).add_(multiply(through.to(rows.dtype), rows))
    log_z = largest + normalizer.log()
    entropy = log_z - weighted / normalizer if with_entropy else weighted
    if with_gradient:
        of_target = layer.weight[targets].float()
        expected.div_(normalizer)
        if layer.cap is None:
            expected = (of_target - expected) * (layer.scale / temperature)
        else:
            expected = (of_target * layer.slope(chosen * temperature) - expected) / temperature
    return (chosen - log_z)[:, 0], entropy[:, 0], expected


def token_logps(
    hidden: Tensor, layer: OutputLayer, targets: Tensor, temperature: float = 1.0, *, with_entropy: bool = True
) -> tuple[Tensor, Tensor]:
    """(log p, entropy) of N tokens in nats, fp32: hidden (N, H), frozen layer (V, H), targets (N,) -> (N,), (N,).

    Differentiable in `hidden` through log p alone; PPO on language models has no entropy bonus (Huang et al. 2024).
    Without `with_entropy` the second is zeros. Raises ModelError when the layer is trained.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (layer.weight, layer.bias)):
        raise ModelError("lm_head", found="trainable", expected="frozen: its gradient is not computed here")
    if torch.is_autocast_enabled(hidden.device.type):  # as the output layer itself would be computed
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    with torch.autocast(hidden.device.type, enabled=False):
        result: tuple[Tensor, Tensor] = _TokenLogps.apply(hidden, layer, targets, temperature, with_entropy)  # type: ignore[no-untyped-call]
    return result


def kl(
    hidden: Tensor,
    other: Tensor,
    layer: OutputLayer,
    other_layer: OutputLayer | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """KL(softmax(l) || softmax(l')) of N tokens in nats, exact, fp32: (N, H), (N, H) -> (N,).

    With l and l' the logits divided by `temperature`: sum_v p_v (l_v - l'_v) - log Z + log Z', accumulated over blocks
    of the vocabulary; where rounding leaves less than 0, 0. `other_layer` is the layer that reads `other`, where it is
    not the same.
    """
    parts = zip(torch.split(hidden, CHUNK_TOKENS), torch.split(other, CHUNK_TOKENS), strict=True)
    return torch.cat([_kl(h, o, layer, other_layer or layer, temperature) for h, o in parts])


def _kl(hidden: Tensor, other: Tensor, layer: OutputLayer, other_layer: OutputLayer, temperature: float) -> Tensor:
    largest, largest_other = (torch.full((len(hidden), 1), -torch.inf, device=hidden.device) for _ in range(2))
    normalizer, normalizer_other, difference = (torch.zeros_like(largest) for _ in range(3))
    of_one, of_other = layer.products(hidden), other_layer.products(other)
    for block, block_other in zip(layer.blocks(), other_layer.blocks(), strict=True):
        logits = layer.finish(of_one(block.weight.to(hidden.dtype)), block.bias)
        logits_other = other_layer.finish(of_other(block_other.weight.to(other.dtype)), block_other.bias)
        if temperature != 1:
            logits.div_(temperature)
            logits_other.div_(temperature)
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
