"""The architectures that are written as GGUF: their keys, the names and the layout of their tensors.

Each is held to llama.cpp's own logits by a test; anything else is refused by name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FILE_TYPES = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
BLOCK = 32  # numbers that share a scale in the q types; a row holds whole blocks


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp takes a family of transformers."""

    name: str  # general.architecture
    activation: str
    scalings: tuple[str, ...] = ("default", "linear", "yarn")  # rope_type
    interleaved: bool = False  # rotates numbers 2i and 2i + 1 of a head; transformers rotates i and i + half
    norm_offset: float = 0.0  # added to the weights of norms, where transformers adds it as it computes
    always_tied: bool = False
    partial_rotation: bool = False
    free_heads: bool = True  # heads x head_dim may be another number than hidden_size
    biases: bool = False  # of attention and MLP, where config.json asks for them


LLAMA = Architecture("llama", "silu", ("default", "linear", "yarn", "llama3"), interleaved=True, biases=True)
ARCHITECTURES = {
    "gemma": Architecture("gemma", "gelu_pytorch_tanh", ("default",), norm_offset=1.0, always_tied=True),
    "llama": LLAMA,
    "mistral": LLAMA,
    "phi3": Architecture("phi3", "silu", ("default",), partial_rotation=True, free_heads=False),
    "qwen2": Architecture("qwen2", "silu"),
    "qwen3": Architecture("qwen3", "silu"),
}


def faults(config: Any, types: Sequence[str]) -> list[str]:
    """What in a transformers configuration, or in the types asked for, cannot be written; phrases for one message."""
    known = ARCHITECTURES.get(config.model_type)
    if known is None:
        return [f"architecture {config.model_type}; the tested ones are {', '.join(ARCHITECTURES)}"]
    found = []
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in (known.activation, {"silu": "swish"}.get(known.activation)):
        found.append(f"activation {activation} ({config.model_type} in llama.cpp computes {known.activation})")
    heads, hidden, head = config.num_attention_heads, config.hidden_size, head_dim(config)
    if not known.free_heads and heads * head != hidden:
        found.append(f"{heads} heads of {head} numbers, which are not the hidden_size {hidden}")
    found += _rope_faults(config, known)
    if known.always_tied and not config.tie_word_embeddings:
        found.append("an output layer of its own (llama.cpp takes the embedding for it)")
    if not known.biases:
        found += [key for key in ("attention_bias", "mlp_bias") if getattr(config, key, False)]
    widths = {"hidden_size": hidden, "intermediate_size": config.intermediate_size, "heads x head_dim": heads * head}
    for kind in types:
        if kind not in FILE_TYPES:
            found.append(
                f"type {kind}: {', '.join(FILE_TYPES)} can be written; for others, such as K-quants, run llama.cpp's "
                "llama-quantize on the f16 file"
            )
        elif kind.startswith("q") and (odd := [f"{key} {value}" for key, value in widths.items() if value % BLOCK]):
            found.append(f"{' and '.join(odd)} for type {kind}, whose rows are multiples of {BLOCK}")
    return found


def _rope_faults(config: Any, known: Architecture) -> list[str]:
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind not in known.scalings:
        allowed = ", ".join(known.scalings)
        return [f"rope scaling {kind} ({config.model_type} is compared with llama.cpp for {allowed})"]
    found = []
    if rope.get("partial_rotary_factor", 1.0) != 1.0 and not known.partial_rotation:
        found.append(f"partial_rotary_factor {rope['partial_rotary_factor']}")
    if kind == "yarn":
        # llama.cpp computes its own scale of attention, 1 + 0.1 ln(factor), and whole dimensions between the two betas
        odd = [key for key in ("attention_factor", "mscale", "mscale_all_dim") if rope.get(key) is not None]
        found += [f"{key} {rope[key]} of yarn" for key in odd]
        if not rope.get("truncate", True):
            found.append("truncate false of yarn")
    return found


def file_name(name: str) -> str:
    """`name` as the beginning of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def head_dim(config: Any) -> int:
    """Numbers per attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def context_length(config: Any) -> int:
    """Tokens of context. llama.cpp has no sliding window for these families, so a model with one ends where it does."""
    window = getattr(config, "sliding_window", None)
    return int(min(config.max_position_embeddings, window) if window else config.max_position_embeddings)


def add_keys(writer: Any, config: Any) -> None:
    """Write the keys of the architecture, `<architecture>.*`, to a gguf.GGUFWriter."""
    import gguf

    rope = config.rope_parameters
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(int(head_dim(config) * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)


def rope_factors(config: Any) -> Tensor | None:
    """(rotated numbers / 2,) what llama.cpp divides each frequency by, for Llama 3's scaling; None for the others."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return None
    scaled: Tensor
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, head_dim(config), 2, dtype=torch.float32) / head_dim(config)
    unscaled = torch.exp(-exponents * math.log(rope["rope_theta"]))
    return unscaled / scaled


class Names:
    """From the names of transformers' parameters to those of GGUF."""

    def __init__(self, config: Any) -> None:
        import gguf

        self._config, self._known = config, ARCHITECTURES[config.model_type]
        arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self._known.name)
        self._map = gguf.get_tensor_name_map(arch, config.num_hidden_layers)

    def gguf(self, name: str) -> str | None:
        """The GGUF name of a parameter, None for one that is not written. Raises KeyError for one that is unknown."""
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and self._config.tie_word_embeddings):
            return None
        found: str | None = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise KeyError(name)
        return found

    def laid_out(self, name: str, rows: Tensor) -> Tensor:
        """A parameter (or the B of a LoRA on it) as llama.cpp computes with it: (out, in) or (out,), any dtype."""
        config, known = self._config, self._known
        if known.norm_offset and name.endswith("norm.weight"):
            return rows.float() + known.norm_offset
        if known.interleaved and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            halves = rows.view(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
            return halves.transpose(1, 2).reshape(rows.shape)
        return rows
