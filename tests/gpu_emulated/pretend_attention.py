"""Scaled dot-product attention as torch chooses it on a GPU, each kernel one launch (see pretend.py).

The choice is that of torch 2.13 for dense inputs: flash where there is no mask, from compute capability 8.0 on; else
the memory-efficient kernel, which knows no grouped queries; else the composite of plain operators. torch chooses in C++
by what its build knows of CUDA, so that the choice is made here instead. The values are those of the CPU's kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MATH, FLASH, EFFICIENT = 0, 1, 2  # numbers of torch's SDPBackend
HALVES = (torch.float16, torch.bfloat16)
Result = tuple[Any, ...]


def attend(
    usual: Callable[..., Tensor],
    capability: tuple[int, int],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention, whose own function is `usual`."""
    kernel = choice(capability, query, key, attn_mask)
    if kernel == MATH:
        options = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal}
        return usual(query, key, value, **options, scale=scale, enable_gqa=enable_gqa)
    if kernel == FLASH:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        out: Tensor = flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        return out
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(bias.logical_not(), -torch.inf)
    if bias is not None:
        bias = bias.expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    out = efficient(query, key, value, bias, query.requires_grad, dropout_p, is_causal, scale=scale)[0]
    return out


def choice(capability: tuple[int, int], query: Tensor, key: Tensor, attn_mask: Tensor | None) -> int:
    """The kernel for these inputs: MATH, FLASH or EFFICIENT."""
    ampere = capability >= (8, 0)
    if query.dim() != 4 or query.shape[0] != key.shape[0]:
        return MATH
    fits_flash = ampere and attn_mask is None and query.dtype in HALVES and query.shape[-1] <= 256
    if fits_flash and torch.backends.cuda.flash_sdp_enabled():
        return FLASH
    runs = query.dtype in (torch.float16, torch.float32) or (ampere and query.dtype == torch.bfloat16)
    if runs and query.shape[1] == key.shape[1] and torch.backends.cuda.mem_efficient_sdp_enabled():
        return EFFICIENT
    return MATH


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Result:
    key, value = (_expanded(part, query) for part in (key, value))
    out, logsumexp = _on_cpu(query, key, value, dropout_p, is_causal, attn_mask=None, scale=scale)
    state = torch.zeros(2, dtype=torch.uint64)
    return out, logsumexp, None, None, query.shape[2], key.shape[2], state, torch.empty(0), query.new_empty(0)


def _flash_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    *unused: Any,
    scale: float | None = None,
) -> Result:
    dropout_p, is_causal = unused[4], unused[5]
    expanded = [_expanded(part, query) for part in (key, value)]
    of_query, of_key, of_value = _on_cpu_backward(
        grad, query, *expanded, out, logsumexp, dropout_p, is_causal, attn_mask=None, scale=scale
    )
    return of_query, _summed(of_key, key), _summed(of_value, value)


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> Result:
    out, logsumexp = _on_cpu(query, key, value, dropout_p, is_causal, attn_mask=attn_bias, scale=scale)
    return out, logsumexp, torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)


def _efficient_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    out: Tensor,
    logsumexp: Tensor,
    philox_seed: Tensor,
    philox_offset: Tensor,
    dropout_p: float,
    grad_input_mask: list[bool],
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> Result:
    found = _on_cpu_backward(
        grad, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask=attn_bias, scale=scale
    )
    return *found, None


def _on_cpu(*args: Any, **kwargs: Any) -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, **kwargs)


def _on_cpu_backward(*args: Any, **kwargs: Any) -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*args, **kwargs)


def _expanded(part: Tensor, query: Tensor) -> Tensor:
    """Keys or values, (B, G, T, D), of each query's own: (B, H, T, D)."""
    groups = query.shape[1] // part.shape[1]
    return part if groups == 1 else part.repeat_interleave(groups, 1)


def _summed(gradient: Tensor, part: Tensor) -> Tensor:
    """The gradient of what `_expanded` took, (B, H, T, D) -> (B, G, T, D)."""
    if gradient.shape == part.shape:
        return gradient
    rows, groups, tokens, size = part.shape
    return gradient.view(rows, groups, -1, tokens, size).float().sum(2).to(gradient.dtype)


KERNELS: dict[str, Callable[..., Result]] = {
    "aten::_scaled_dot_product_flash_attention": _flash,
    "aten::_scaled_dot_product_flash_attention_backward": _flash_backward,
    "aten::_scaled_dot_product_efficient_attention": _efficient,
    "aten::_scaled_dot_product_efficient_attention_backward": _efficient_backward,
}
