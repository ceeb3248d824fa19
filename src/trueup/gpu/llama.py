"""Which models the decoder on a GPU knows: Llama's block, and where each family keeps the parts of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

KNOWN = ("gemma", "granite", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3")
ROTATIONS = ("default", "linear", "llama3", "yarn")  # angles that depend on the position alone


def unknown(whole: Any) -> str:
    """Why the decoder is not right for a causal model, its adapters included; empty where it is.

    Parts are looked at, not names alone: what the decoder computes is what `transformers` computes of these parts.
    """
    config = whole.config
    if config.model_type not in KNOWN:
        return f"our decoder on a GPU does not know the architecture {config.model_type}"
    trunk = whole.base_model
    attentions = [layer.self_attn for layer in trunk.layers]
    rotation = trunk.rotary_emb
    if rotation.rope_type not in ROTATIONS or any(2 * len(rotation.inv_freq) != a.head_dim for a in attentions):
        return f"our decoder on a GPU does not know this rotation of positions ({rotation.rope_type})"
    if any(not a.is_causal for a in attentions):
        return "our decoder on a GPU is for causal attention"
    for module in trunk.modules():
        if hasattr(module, "lora_A") and not module.disable_adapters:
            names = [name for name in module.active_adapters if name in module.lora_A]
            if len(names) > 1 or len(module.active_adapters) > 1:
                return "more than one adapter is active"
            if any(name in getattr(module, "lora_variant", {}) for name in names):
                return "the active adapter is not plain LoRA"
            if type(module).__name__.startswith("SVD"):
                return "the active adapter is not plain LoRA"
    return ""


@dataclass(frozen=True)
class Norm:
    """RMSNorm (Zhang and Sennrich 2019, eq. 4) over the last dimension, in one kernel."""

    weight: Tensor
    eps: float

    @staticmethod
    def of(module: Any, config: Any) -> Norm:
        """Of a norm of transformers."""
        weight = module.weight.detach()
        if config.model_type == "gemma":
            return Norm(1 + weight.float(), module.eps)
        return Norm(weight, module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def maps(layer: Any) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """The linear maps of a layer that read the same input: queries, keys and values; output; gate and up; down."""
    a, m = layer.self_attn, layer.mlp
    qkv = [a.qkv_proj] if hasattr(a, "qkv_proj") else [a.q_proj, a.k_proj, a.v_proj]
    gate_up = [m.gate_up_proj] if hasattr(m, "gate_up_proj") else [m.gate_proj, m.up_proj]
    return qkv, [a.o_proj], gate_up, [m.down_proj]


def window(config: Any, attention: Any) -> int | None:
    """Tokens that an attention layer sees, its own included; None for all of them."""
    if config.model_type in ("mistral", "phi3"):  # which keep it in their configuration alone
        found: int | None = config.sliding_window
        return found
    return getattr(attention, "sliding_window", None)
