"""An adapter for the 16-bit base that is near the policy that was trained on the 4-bit one.

For each map, the policy's weight minus the base's, (dequantize(W) + s B A) - W, is approximated by a product of low
rank. What the product misses is weighed by the size of the map's inputs: truncated singular value decomposition of the
difference times the root mean square of each input (Zhang et al. 2024, LQER, arXiv 2402.02446).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
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
    beside the model. Returns `left_out`, the share of the weighed differences that the rank leaves out, of all maps.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    rank, bare = rank or RANK, model.get_base_model()
    dense = _sixteen_bits(bare)
    changed = dict(_changed(bare))
    sizes = input_sizes(dense, list(changed), [prompt + answer for prompt, answer in texts.recorded(adapter)])
    tensors: dict[str, Tensor] = {}
    left_out = whole = 0.0
    for name, weight in changed.items():
        difference = weight() - dense.get_submodule(name).weight.to(bare.device, torch.float32)
        b, a, missed, size = low_rank(difference, sizes[name].to(bare.device), rank)
        left_out, whole = left_out + missed, whole + size
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.cpu().contiguous()
    ends = sorted({name.rpartition(".")[2] for name in changed})
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=ends, task_type="CAUSAL_LM", inference_mode=True)
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(out))
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return {"left_out": left_out / whole if whole else 0.0}


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


def _changed(bare: Any) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """(name, its weight in fp32 with the adapter "default") of each map in 4 bits or with an adapter."""
    inside = "\0"
    for name, module in bare.named_modules():
        if name.startswith(inside):
            continue
        if hasattr(module, "lora_A"):
            inside = f"{name}."
            yield name, functools.partial(merging.merged_weight, module)
        elif base.linear4bit_layers(module)[:1] == [module]:
            yield name, functools.partial(merging.dense_weight, module)
