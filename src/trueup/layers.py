"""What a linear layer of the model holds: a frozen weight, 4-bit or not, and the adapter in use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def active_adapter(module: Any) -> str | None:
    """The adapter in use, or None for a plain layer, a bare base or a layer without that adapter."""
    if not hasattr(module, "lora_A") or module.disable_adapters:
        return None
    return next((name for name in module.active_adapters if name in module.lora_A), None)


def dequantize(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The dense weight, (out, in); where it is not 4-bit it may be the stored one."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.to(dtype)
    dense: Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
        weight.data, block_scales(state), state.blocksize, state.quant_type, state.shape, dtype
    )
    return dense


def block_scales(state: Any) -> Tensor:
    """The scale of each block of a 4-bit weight, (blocks,) in fp32: double quantization undone.

    A CPU keeps them, at 1/16 byte per weight; doing it anew took a sixth of every forward. On a GPU it is quickly done,
    and memory is short.
    """
    from bitsandbytes.functional import dequantize_blockwise

    if not state.nested:
        return state.absmax.float()  # type: ignore[no-any-return]
    if hasattr(state, "block_scales"):
        return state.block_scales  # type: ignore[no-any-return]
    scales: Tensor = (dequantize_blockwise(state.absmax, state.state2) + state.offset).float()
    if scales.device.type == "cpu":
        state.block_scales = scales
    return scales
