"""torch.compile by region: norms and MLPs of the decoder layers, whose many small steps become few.

Attention and LoRA's products stay as they are: they are large, and what they call cannot be traced.
"""

from __future__ import annotations

from typing import Any

ATTENTION = ("self_attn", "attention")  # its name in a decoder layer


def install(model: Any, backend: str = "inductor") -> int:
    """Compile the regions of every decoder layer, for rows of any length, when they are first run; how many they are.

    Layers of equal shape share what is compiled.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.modeling_layers import GradientCheckpointingLayer

    regions = [
        region
        for layer in model.modules()
        if isinstance(layer, GradientCheckpointingLayer)
        for name, region in layer.named_children()
        if name not in ATTENTION and not isinstance(region, BaseTunerLayer)
    ]
    for region in regions:
        region.compile(backend=backend, dynamic=True)
    return len(regions)
