"""The architectures whose log-probabilities trueup knows to be right, and what config.json alone rules out.

Every family here is held to plain transformers by `tests/architectures`; docs/models.md is the table those tests write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.errors import ModelError


@dataclass(frozen=True)
class Family:
    """How a family makes logits of W h + b: times `scale(config)`, then cap x tanh(logits / cap) for `cap(config)`."""

    scale: Callable[[Any], float] = lambda config: 1.0
    cap: Callable[[Any], float | None] = lambda config: None


PLAIN = Family()
CAPPED = Family(cap=lambda config: config.final_logit_softcapping)
SCALED = Family(scale=lambda config: config.logit_scale)
FAMILIES = {
    "cohere": SCALED,
    "cohere2": SCALED,
    "gemma": PLAIN,
    "gemma2": CAPPED,
    "gemma3_text": CAPPED,
    "gpt_neox": PLAIN,
    "granite": Family(scale=lambda config: 1 / config.logits_scaling),
    "llama": PLAIN,
    "mistral": PLAIN,
    "nemotron": PLAIN,
    "olmo": PLAIN,
    "olmo2": PLAIN,
    "opt": PLAIN,
    "phi": PLAIN,
    "phi3": PLAIN,
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "smollm3": PLAIN,
    "stablelm": PLAIN,
    "starcoder2": PLAIN,
}

# Trained in bf16, with activations that leave the range of fp16 (65,504), as their makers or users report.
BEYOND_FP16 = ("gemma", "gemma2", "gemma3_text", "phi", "qwen2")


def refuse_unknown(config: Any, where: str) -> None:
    """Raises ModelError unless the model described by `config` is one whose log-probabilities are known to be right.

    `config` is a transformers configuration: config.json is all that is read. `where` names the model in the message.
    """
    kind = config.model_type
    if config.get_text_config() is not config:
        raise ModelError(
            where,
            found=f"architecture {kind}, which reads more than text",
            expected="a model of text alone",
            next_step="set model.base to the text model of this family, where there is one (see docs/models.md)",
        )
    if kind not in FAMILIES:
        raise ModelError(
            where,
            found=f"architecture {kind}: its log-probabilities were never compared with transformers' own",
            expected=f"one of {', '.join(FAMILIES)}",
            next_step="set model.base to a model of one of these (docs/models.md says what was tested of each)",
        )
    refuse_quantized(config, where)


def refuse_quantized(config: Any, where: str) -> None:
    """Raises ModelError for weights saved in a form other than 16 or 32 bits, or 4 bits by bitsandbytes."""
    saved = quantization(config)
    if saved and not saved.get("load_in_4bit"):
        method = saved.get("quant_method", "an unknown method")
        raise ModelError(
            where,
            found=f"weights that are quantized already, by {method}"
            + (" in 8 bits" if saved.get("load_in_8bit") else ""),
            expected="16-bit weights, which trueup quantizes itself, or weights in 4 bits by bitsandbytes",
            next_step="set model.base to the 16-bit model that this one was made from",
        )


def quantization(config: Any) -> dict[str, Any]:
    """The `quantization_config` of config.json; empty for a model saved in 16 or 32 bits."""
    saved = getattr(config, "quantization_config", None) or {}
    return dict(saved) if isinstance(saved, dict) else dict(saved.to_dict())


def attention_implementation(config: Any) -> str | None:
    """What transformers is asked to compute attention with; None leaves the choice to it.

    Its SDPA attention leaves out the soft cap on attention scores (Gemma 2); its eager attention has it.
    """
    return "eager" if getattr(config, "attn_logit_softcapping", None) is not None else None


def classifier(config: Any) -> Any:
    """The class of a sequence classifier on the trunk that `config` describes.

    Where transformers has none (Granite, OLMo, Cohere), its generic one is put on the family's trunk.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        AutoModelForSequenceClassification,
    )
    from transformers.modeling_layers import GenericForSequenceClassification

    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return AutoModelForSequenceClassification
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    name = causal.__name__.replace("ForCausalLM", "ForSequenceClassification")
    return type(name, (GenericForSequenceClassification, causal.__bases__[0]), {"__module__": causal.__module__})
