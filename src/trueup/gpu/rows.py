"""A padded batch as one sequence: row after row, each with positions of its own, and no padding.

Only the trunk's forward from token ids without a cache is replaced; `generate` still goes the usual way. Hidden states
of a causal model depend on a token's own row alone, so the result is that of the padded forward.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor

from trueup.gpu import attention


def why_not(whole: Any) -> str:
    """Why this causal model or classifier keeps its padding; empty where it need not."""
    config = whole.config
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "a soft cap on attention scores"  # eager attention, over all pairs of tokens of the batch
    if config._attn_implementation not in ("sdpa", attention.NAME):
        return f"attention by {config._attn_implementation}"
    if not all(getattr(module, "is_causal", True) for module in whole.modules()):
        return "attention that is not causal"
    return ""


def install(whole: Any) -> None:
    """Give the trunk of `whole`, whose attention is `attention.attend`, the forward without padding."""
    trunk = whole.base_model
    if not hasattr(trunk, "usual_forward"):
        trunk.usual_forward = trunk.forward
        trunk.forward = types.MethodType(_forward, trunk)


def _forward(self: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    given = {name: value for name, value in kwargs.items() if value is not None}
    # transformers 5.24 renames `past_key_values` to `cache`
    cached = bool(given.get("use_cache")) or "past_key_values" in given or "cache" in given
    other = cached or "position_ids" in given or bool(given.get("output_hidden_states"))
    if input_ids is None or attention_mask is None or attention_mask.dim() != 2 or other:
        return self.usual_forward(input_ids=input_ids, attention_mask=attention_mask, **given)
    real = attention_mask.bool().cpu()  # the one time that a forward waits for the device
    width = real.shape[1]
    lengths = [length for length in real.sum(1).tolist() if length]
    if sum(lengths) in (0, real.numel()):  # no padding: the batch as it is, each of its rows causal
        positions = torch.arange(width, device=input_ids.device)[None]
        mask = attention.lengths_mask([width])
        return self.usual_forward(input_ids=input_ids, attention_mask=mask, position_ids=positions, **given)
    places = real.view(-1).nonzero()[:, 0].to(input_ids.device)
    positions = torch.cat([torch.arange(length) for length in lengths]).to(input_ids.device)
    out = self.usual_forward(
        input_ids=input_ids.reshape(-1)[places][None],
        attention_mask=attention.lengths_mask(lengths),
        position_ids=positions[None],
        **given,
    )
    hidden = out.last_hidden_state[0]
    padded = hidden.new_zeros(real.numel(), hidden.shape[-1]).index_copy(0, places, hidden)
    out.last_hidden_state = padded.view(*real.shape, -1)
    return out
