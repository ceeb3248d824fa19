"""Writing a policy as one model: each map dense, its adapter added in fp32, and rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    `model` is taken apart: beside it, the maps of one file are held, on the CPU, and each is freed once it is merged.
    `saved_in_4_bits`: so are the base's own files. `end_ids`: the end tokens of the saved generation configuration;
    without any it keeps the base's.
    """
    from transformers import GenerationConfig

    whole, sums = taken_apart(model, dtype)
    settings, whole.generation_config = whole.generation_config, GenerationConfig()
    # transformers cannot reverse what it read 4-bit files by, and reverses other files' only with all weights at hand
    converted = not saved_in_4_bits and bool(getattr(whole, "_weight_conversions", None))
    state = {name: sums.pop(name)() if name in sums and converted else t for name, t in whole.state_dict().items()}
    whole.save_pretrained(
        out, max_shard_size=SHARD, save_original_format=converted, state_dict=_MergedWhenTaken(state, sums)
    )
    named = settings.eos_token_id
    ends = list(end_ids) or ([named] if isinstance(named, int) else list(named or []))
    adapter.write_generation(settings, ends, out)
    described = read_json(out / "config.json") or {}  # keys with "_" before them name the place of the base
    write_json(out / "config.json", {key: value for key, value in described.items() if not key.startswith("_")})


class _MergedWhenTaken(dict[str, Tensor]):
    """A state dict some of whose weights are made when transformers takes them out to write a file."""

    def __init__(self, state: dict[str, Tensor], sums: dict[str, Callable[[], Tensor]]) -> None:
        super().__init__(state)
        self.sums = sums

    def pop(self, name: str, *default: Any) -> Any:
        there = super().pop(name, *default)
        return self.sums.pop(name)() if name in self.sums else there


@torch.no_grad()
def taken_apart(model: Any, dtype: torch.dtype) -> tuple[Any, dict[str, Callable[[], Tensor]]]:
    """(the base of a peft model, in 16 bits or 4, without the weights of its maps; by name, what makes each of them).

    A map's weight is the sum with adapter "default", in `dtype` on the CPU. The sum of a dequantized map and its
    adapter is made in fp32 by peft and rounded once: to add it to a map that is rounded already loses small updates.
    DoRA divides by the norms of the maps as they are dequantized here.
    """
    bare = model.get_base_model()
    quantizer = getattr(bare, "hf_quantizer", None)
    layers = {name: layer for name, layer in bare.named_modules() if hasattr(layer, "lora_A")}
    sums = {f"{name}.weight": _once(merged_weight, layer, dtype) for name, layer in layers.items()}
    biases = {name: layer.get_base_layer().bias for name, layer in layers.items()}
    bare = model.unload()
    for name, module in list(bare.named_modules()):
        if name not in layers and _in_4_bits(module):
            sums[f"{name}.weight"], biases[name] = _once(dense_weight, module, dtype), module.bias
    for name, bias in biases.items():
        bare.set_submodule(name, _empty(bare.get_submodule(name), bias, dtype))
    if quantizer is not None:
        quantizer.remove_quantization_config(bare)
    _move(bare, dtype)
    return bare, sums


def _move(bare: Any, dtype: torch.dtype) -> None:
    """What is no map of `bare` to the CPU in `dtype`: embeddings, norms, an output layer, which may be tied."""
    moved: dict[int, nn.Parameter] = {}
    for module in bare.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type != "meta":
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(parameter.detach().to("cpu", dtype), requires_grad=False)
                setattr(module, name, moved[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to("cpu", dtype if buffer.is_floating_point() else buffer.dtype))


def _once(weight: Callable[[Any], Tensor], layer: Any, dtype: torch.dtype) -> Callable[[], Tensor]:
    """What makes a map's weight, (out, in) in `dtype` on the CPU; the map itself is freed with it."""

    @torch.no_grad()
    def made() -> Tensor:
        return weight(layer).to("cpu", dtype)

    return made


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


def _empty(module: Any, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    """A linear map of the shape of `module` without a weight, its bias in `dtype` on the CPU."""
    with torch.device("meta"):
        made = nn.Linear(module.in_features, module.out_features, bias=bias is not None, dtype=dtype)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to("cpu", dtype), requires_grad=False)
    return made
