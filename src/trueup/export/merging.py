"""Writing a policy as one model: each map dense, its adapter added in fp32, and rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trueup.export import adapter
from trueup.run.files import read_json, write_json

SHARD = "5GB"  # of a file, as on the hub


def write(
    model: Any,
    out: Path,
    *,
    saved_in_4_bits: bool,
    end_ids: Sequence[int] = (),
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Save base plus adapter "default" of the peft model `model` into `out`, as safetensors of `dtype`.

    `model` is taken apart, a map at a time: beside it, the maps of the merged model are held, on the CPU.
    `saved_in_4_bits`: so are the base's own files. `end_ids`: the end tokens of the saved generation configuration;
    without any it keeps the base's.
    """
    from transformers import GenerationConfig

    whole = merge(model, dtype)
    settings, whole.generation_config = whole.generation_config, GenerationConfig()
    # transformers cannot reverse what it read 4-bit files by
    whole.save_pretrained(out, max_shard_size=SHARD, save_original_format=not saved_in_4_bits)
    named = settings.eos_token_id
    ends = list(end_ids) or ([named] if isinstance(named, int) else list(named or []))
    adapter.write_generation(settings, ends, out)
    described = read_json(out / "config.json") or {}  # keys with "_" before them name the place of the base
    write_json(out / "config.json", {key: value for key, value in described.items() if not key.startswith("_")})


@torch.no_grad()
def merge(model: Any, dtype: torch.dtype) -> Any:
    """The base of a peft model, in 16 bits or 4, with adapter "default" added to its maps: all of it in `dtype`.

    The sum of a dequantized map and its adapter is made in fp32 by peft and rounded once: to add it to a map that is
    rounded already loses small updates. DoRA divides by the norms of the maps as they are dequantized here.
    """
    bare = model.get_base_model()
    quantizer = getattr(bare, "hf_quantizer", None)
    merged = {
        name: _linear(merged_weight(layer), layer.get_base_layer().bias, dtype)
        for name, layer in bare.named_modules()
        if hasattr(layer, "lora_A")
    }
    bare = model.unload()
    for name, module in list(bare.named_modules()):
        if name not in merged and _in_4_bits(module):
            merged[name] = _linear(dense_weight(module), module.bias, dtype)
    for name, linear in merged.items():
        bare.set_submodule(name, linear)
    if quantizer is not None:
        quantizer.remove_quantization_config(bare)
    return bare.to("cpu", dtype)


def merged_weight(layer: Any) -> Tensor:
    """W with the adapter "default" of a peft layer, in fp32."""
    dense = dense_weight(layer.get_base_layer())
    if (variant := layer.lora_variant.get("default")) is not None:
        whole: Tensor = variant.merge_safe(layer, "default", dense)
        return whole
    update: Tensor = layer.get_delta_weight("default")
    return dense + update.float()


def dense_weight(module: Any) -> Tensor:
    """The weight of a linear map in fp32, dequantized where it is in 4 bits."""
    from bitsandbytes.functional import dequantize_4bit

    if not _in_4_bits(module):
        weight: Tensor = module.weight.float()
        return weight
    module.weight.quant_state.dtype = torch.float32  # of what it dequantizes to, here and in peft
    whole: Tensor = dequantize_4bit(module.weight.data, module.weight.quant_state)
    return whole


def _in_4_bits(module: Any) -> bool:
    from bitsandbytes.nn import Linear4bit

    return isinstance(module, Linear4bit)


def _linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.to("cpu", dtype), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to("cpu", dtype), requires_grad=False)
    return made
