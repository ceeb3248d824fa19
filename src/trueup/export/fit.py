"""An adapter for the 16-bit base that is near the policy that was trained on the 4-bit one.

The policy's weight is dequantize(W) + s B A, the base's W. The adapter keeps s B A as it was trained, and its other
ranks hold the product that is nearest to what quantization changed, dequantize(W) - W. Each input counts by its root
mean square on some texts, as in LQER (Zhang et al. 2024, arXiv 2402.02446).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trueup.export import merging, texts
from trueup.models import base, families

RANK = 64
SMALLEST = 0.01  # of the mean size of a map's inputs: one that was silent here may not be silent elsewhere


@torch.no_grad()
def write(model: Any, adapter: Path, out: Path, rank: int | None = None) -> dict[str, float]:
    """Write into `out` a LoRA adapter of `rank` for the 16-bit base of the peft model `model`, whose base is in 4 bits.

    Every map that is held in 4 bits gets one, whether it was trained or not, since quantization changed it as well. How
    large its inputs are is measured on the texts recorded with `adapter`. The 16-bit base is read into the CPU's memory
    beside the model. Returns `left_out`, the share of what quantization changed that the ranks do not hold, weighed and
    squared, over all maps, and `rank`: at least twice that of the trained adapter.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    bare = model.get_base_model()
    dense, maps = _sixteen_bits(bare), dict(_maps(bare))
    rank = max(rank or RANK, *(2 * getattr(module, "r", {}).get("default", 0) for module in maps.values()))
    sizes = input_sizes(dense, list(maps), [prompt + answer for prompt, answer in texts.recorded(adapter)])
    tensors: dict[str, Tensor] = {}
    left_out = whole = 0.0
    for name, module in maps.items():
        weight, b, a = _kept(module)
        difference = weight - dense.get_submodule(name).weight.to(weight.device, torch.float32)
        more_b, more_a, missed, size = low_rank(difference, sizes[name].to(weight.device), rank - b.shape[1])
        left_out, whole = left_out + missed, whole + size
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.cat([a, more_a]).cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.cat([b, more_b], dim=1).cpu().contiguous()
    ends = sorted({name.rpartition(".")[2] for name in maps})
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=ends, task_type="CAUSAL_LM", inference_mode=True)
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(out))
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return {"left_out": left_out / whole if whole else 0.0, "rank": rank}


def input_sizes(model: Any, names: Sequence[str], rows: Sequence[list[int]]) -> dict[str, Tensor]:
    """The root mean square of each input of the maps `names` over all tokens of `rows`, (in,) each."""
    sums: dict[str, Tensor] = {}

    def add(name: str, values: Tensor) -> None:
        found = values.float().flatten(0, -2).square().sum(0)
        sums[name] = sums[name] + found if name in sums else found

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda module, args, name=name: add(name, args[0]))
        for name in names
    ]
    try:
        for ids in rows:
            model(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    num_tokens = sum(map(len, rows))
    roots = {name: (found / num_tokens).sqrt() for name, found in sums.items()}
    return {name: root.clamp_min(SMALLEST * root.mean()) for name, root in roots.items()}


def low_rank(difference: Tensor, sizes: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """(B, A, squared weighed error, squared weighed size) of the nearest product B A of `rank` to `difference`.

    `difference` is (out, in), `sizes` (in,): how large each input is. B is (out, rank), A (rank, in); ranks beyond
    those of the map are zeros. By Eckart and Young, no other product of this rank has a smaller error.
    """
    left, values, right = torch.linalg.svd(difference * sizes, full_matrices=False)
    root = values[:rank].sqrt()
    b, a = left[:, :rank] * root, root.unsqueeze(-1) * right[:rank] / sizes
    missing = rank - len(root)
    if missing > 0:
        b, a = nn.functional.pad(b, (0, missing)), nn.functional.pad(a, (0, 0, 0, missing))
    return b, a, values[rank:].square().sum().item(), values.square().sum().item()


def _sixteen_bits(bare: Any) -> Any:
    """The base that `bare` was made of, as its files hold it, on the CPU."""
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": "auto", "trust_remote_code": False, "use_safetensors": True}
    if (attention := families.attention_implementation(bare.config)) is not None:
        options["attn_implementation"] = attention
    return AutoModelForCausalLM.from_pretrained(bare.name_or_path, **options).eval()


def _maps(bare: Any) -> Iterator[tuple[str, Any]]:
    """(name, module) of each map in 4 bits or with an adapter."""
    inside = "\0"
    for name, module in bare.named_modules():
        if name.startswith(inside):
            continue
        if hasattr(module, "lora_A"):
            inside = f"{name}."
            yield name, module
        elif base.linear4bit_layers(module)[:1] == [module]:
            yield name, module


def _kept(module: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(W, B, A) in fp32 such that W + B A is a map's weight: as it was dequantized, and its adapter "default", scaled.

    Without an adapter, or with one that is no such sum (DoRA, AdaLoRA), W is the whole weight and B A has no ranks.
    """
    if not hasattr(module, "lora_A"):
        weight = merging.dense_weight(module)
    elif not module.lora_variant.get("default") and hasattr(module.lora_A["default"], "weight"):
        weight = merging.dense_weight(module.get_base_layer())
        b, a = (part["default"].weight.float() for part in (module.lora_B, module.lora_A))
        return weight, b * module.scaling["default"], a
    else:
        weight = merging.merged_weight(module)
    return weight, weight.new_zeros(weight.shape[0], 0), weight.new_zeros(0, weight.shape[1])
