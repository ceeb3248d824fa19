"""The linear maps in a layer of each family, under the names that transformers gives them.

A family that is not listed has those of Llama. `tests/unit/test_shapes.py` compares every family with transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

Maps = dict[str, tuple[str, str]]  # name to (in, out), each a size that `Shape.linear` knows


@dataclass(frozen=True)
class Layout:
    """One layer of a family, and what its config.json leaves unsaid."""

    attention: Maps
    mlp: Maps
    tied: bool = False  # where config.json does not say so
    intermediate: str = "intermediate_size"  # the key of config.json
    offset: int = 0  # unused first rows of a learned embedding of positions; 0 where there is no such embedding

    @property
    def maps(self) -> Maps:
        """All linear maps of a layer."""
        return self.attention | self.mlp


INPUT: Maps = {"q_proj": ("hidden", "queries"), "k_proj": ("hidden", "keys"), "v_proj": ("hidden", "keys")}
OUTPUT = ("queries", "hidden")
FUSED = ("hidden", "queries, keys and values")
UP, DOWN = ("hidden", "intermediate"), ("intermediate", "hidden")
GATED: Maps = {"gate_proj": UP, "up_proj": UP, "down_proj": DOWN}
TWO: Maps = {"fc1": UP, "fc2": DOWN}

LLAMA = Layout(INPUT | {"o_proj": OUTPUT}, GATED)
TIED = Layout(LLAMA.attention, GATED, tied=True)
FAMILIES = {
    "cohere": TIED,
    "cohere2": TIED,
    "gemma": TIED,
    "gemma2": TIED,
    "gemma3_text": TIED,
    "gpt_neox": Layout({"query_key_value": FUSED, "dense": OUTPUT}, {"dense_h_to_4h": UP, "dense_4h_to_h": DOWN}),
    "nemotron": Layout(LLAMA.attention, {"up_proj": UP, "down_proj": DOWN}),
    "opt": Layout(INPUT | {"out_proj": OUTPUT}, TWO, tied=True, intermediate="ffn_dim", offset=2),
    "phi": Layout(INPUT | {"dense": OUTPUT}, TWO),
    "phi3": Layout(
        {"qkv_proj": FUSED, "o_proj": OUTPUT}, {"gate_up_proj": ("hidden", "gate and up"), "down_proj": DOWN}
    ),
    "smollm3": TIED,
    "starcoder2": Layout(LLAMA.attention, {"c_fc": UP, "c_proj": DOWN}, tied=True),
}


PACKED = ("llama", "qwen2")  # families with a forward pass of their own on a CPU (cpu/trunk.py)


def of_family(model_type: str) -> Layout:
    """The layout of `model_type` in config.json."""
    return FAMILIES.get(model_type, LLAMA)
