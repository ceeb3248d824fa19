"""The base as vLLM reads it: each map dense in 16 bits, with exactly the numbers that the 4-bit base computes with.

vLLM's own 4-bit loading makes other numbers of the same weights, or none at all in the versions that left bitsandbytes
out; an adapter is trained on the numbers that are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trueup.models import causal
from trueup.run.files import write_json

INDEX = "model.safetensors.index.json"


def num_bytes(model: Any) -> int:
    """Bytes of what `write` writes."""
    return sum(tensor.numel() for _, tensor in _shapes(model)) * 2


@torch.no_grad()
def write(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save the base under the adapters of `model` into `folder`, in the dtype it computes in, a file for each layer.

    One map is dense at a time.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    dtype = causal.bare(model).get_input_embeddings().weight.dtype
    where: dict[str, str] = {}
    total = 0
    for number, part in enumerate(_parts(model)):
        file = f"model-{number:05d}.safetensors"
        tensors = {name: dense(parameter).to("cpu", dtype).contiguous() for name, parameter in part}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    described = causal.bare(model).config.to_dict()
    described.pop("quantization_config", None)
    described |= {"dtype": str(dtype).removeprefix("torch."), "torch_dtype": str(dtype).removeprefix("torch.")}
    write_json(folder / "config.json", {key: value for key, value in described.items() if not key.startswith("_")})
    tokenizer.save_pretrained(folder)


def dense(parameter: Tensor) -> Tensor:
    """A parameter as it is computed with: a 4-bit one dequantized to its compute dtype."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach()
    from bitsandbytes.functional import dequantize_4bit

    found: Tensor = dequantize_4bit(parameter.data, state)
    return found


def _parameters(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names as in the base's own files, and parameters; without adapters, a tied output layer and other copies."""
    seen: set[int] = set()
    for name, parameter in causal.bare(model).named_parameters():
        if "lora_" not in name and "modules_to_save" not in name and id(parameter) not in seen:
            seen.add(id(parameter))
            yield name.replace(".base_layer.", "."), parameter


def _shapes(model: Any) -> Iterator[tuple[str, Tensor]]:
    """As `_parameters`, with an empty tensor of the dense shape for each 4-bit one."""
    for name, parameter in _parameters(model):
        state = getattr(parameter, "quant_state", None)
        yield name, parameter if state is None else torch.empty(state.shape, device="meta")


def _parts(model: Any) -> list[list[tuple[str, Tensor]]]:
    """The parameters of each layer; and all others."""
    parts: dict[str, list[tuple[str, Tensor]]] = {}
    for name, parameter in _parameters(model):
        number = next((word for word in name.split(".") if word.isdigit()), "")
        parts.setdefault(number, []).append((name, parameter))
    return list(parts.values())
