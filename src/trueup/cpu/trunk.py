"""The decoder layers of a small Llama-shaped model on a CPU: packed tokens in, hidden states out."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor

from trueup.cpu import block
from trueup.cpu.grouping import group
from trueup.cpu.packing import pack
from trueup.layers import active_adapter

KNOWN = ("llama", "qwen2")
ROTATIONS = ("default", "linear", "llama3", "yarn")  # angles that depend on the position alone


def install(whole: Any) -> bool:
    """Give a causal model or classifier the packed forward; False where it is left as it is.

    Only the trunk's forward from token ids without a cache is replaced; `generate` still goes the usual way.
    """
    trunk = whole.base_model
    if not knows(whole) or hasattr(trunk, "usual_forward"):
        return False
    trunk.usual_forward = trunk.forward
    trunk.forward = types.MethodType(_forward, trunk)
    return True


def knows(whole: Any) -> bool:
    """True for a Llama or Qwen2 whose every part is as `block` computes it: SiLU, full attention, rotation of whole
    heads by angles that depend on the position alone.
    """
    config = whole.config
    if config.model_type not in KNOWN or config.hidden_act not in ("silu", "swish"):
        return False
    rotation, layers = whole.base_model.rotary_emb, whole.base_model.layers
    attentions = [layer.self_attn for layer in layers]
    return bool(
        rotation.rope_type in ROTATIONS
        and all(2 * len(rotation.inv_freq) == a.head_dim and a.scaling == a.head_dim**-0.5 for a in attentions)
        and all(getattr(a, "sliding_window", None) is None and a.is_causal for a in attentions)
        and all((a.q_proj.bias is None) == (a.k_proj.bias is None) == (a.v_proj.bias is None) for a in attentions)
    )


def _forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    # transformers 5.24 renames `past_key_values` to `cache`: what was not given is not passed on
    given = {name: value for name, value in kwargs.items() if value is not None}
    cached = bool(given.get("use_cache")) or "past_key_values" in given or "cache" in given
    if cached or input_ids is None or not plain(self):
        return self.usual_forward(input_ids=input_ids, attention_mask=attention_mask, **given)
    from transformers.modeling_outputs import BaseModelOutputWithPast

    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    packed = pack(input_ids, mask)
    groups = group(packed.nodes)
    x = self.embed_tokens(packed.ids)
    rotary = block.Rotary.of(self, x, packed.positions)
    checkpoint = bool(self.training and getattr(self, "gradient_checkpointing", False))
    for layer in self.layers:
        x = block.run(block.Block.of(layer), x, rotary, groups, checkpoint)
    return BaseModelOutputWithPast(last_hidden_state=packed.unpack(self.norm(x)))


def plain(trunk: Any) -> bool:
    """True when nothing is dropped out, and every adapter in use is plain LoRA."""
    if trunk.training and trunk.config.attention_dropout > 0:
        return False
    for module in trunk.modules():
        if hasattr(module, "lora_A"):
            name = active_adapter(module)
            if name is None:
                continue
            dropout = module.lora_dropout[name]
            if getattr(module, "use_dora", {}).get(name) or len(module.active_adapters) != 1:
                return False
            if type(module).__name__.startswith("SVD") or (isinstance(dropout, torch.nn.Dropout) and dropout.p > 0):
                return False
    return True
