"""Which models the decoder on a GPU knows: Llama's block and what Mistral, Qwen2 and Qwen3 change of it."""

from __future__ import annotations

from typing import Any

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
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


def window(config: Any, attention: Any) -> int | None:
    """Tokens that an attention layer sees, its own included; None for all of them."""
    if config.model_type == "mistral":  # which keeps it in its configuration alone
        found: int | None = config.sliding_window
        return found
    return getattr(attention, "sliding_window", None)
