"""The adapter as peft and vLLM read it: weights, configuration, tokenizer, and how its base is loaded."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.export import older
from trueup.export.origin import Origin
from trueup.run.files import read_json, write_json

WEIGHTS = "adapter_model.safetensors"
QUANTIZATION = "quantization_config.json"  # what BitsAndBytesConfig.from_dict takes: how the base was held in training


def write(source: Path, out: Path, origin: Origin, quantization: dict[str, Any] | None) -> None:
    """Write the adapter saved in `source` into `out`: its weights and configuration, and how its base is loaded.

    `quantization` is the configuration of the 4-bit base; None for a base that is loaded as its files are.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = read_json(source / "adapter_config.json") or {}
    if config.get("rank_pattern"):
        _of_one_rank(source, out, config)
    else:
        shutil.copyfile(source / WEIGHTS, out / WEIGHTS)
    config |= {"base_model_name_or_path": origin.name, "revision": origin.revision, "inference_mode": True}
    write_json(out / "adapter_config.json", dict(sorted(config.items())))
    if quantization is not None:
        write_json(out / QUANTIZATION, quantization)


def write_tokenizer(tokenizer: Any, out: Path) -> None:
    """Save the tokenizer and its chat template into `out`; what is there is then read by older readers too."""
    tokenizer.save_pretrained(out)
    older.settle(out)


def write_generation(settings: Any, end_ids: Sequence[int], out: Path) -> None:
    """Save the base's generation settings with the end tokens of the trained model.

    Written as they are: transformers refuses to save a published configuration once its end tokens are changed, if it
    holds a temperature beside greedy decoding, as many do.
    """
    values = {key: value for key, value in settings.to_diff_dict().items() if not key.startswith("_")}
    ends = list(end_ids)
    write_json(out / "generation_config.json", values | {"eos_token_id": ends if len(ends) > 1 else ends[0]})


def quantization_of(model: Any) -> dict[str, Any] | None:
    """The quantization that a base in memory was loaded with; None for one in 16 bits."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    found: dict[str, Any] = config if isinstance(config, dict) else config.to_diff_dict()
    return {key: value for key, value in found.items() if not key.startswith("_")}


def open_modes(folder: Path) -> None:
    """Give every file below `folder` the modes that the user's umask gives a new file: safetensors makes them 0600."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def _of_one_rank(source: Path, out: Path, config: dict[str, Any]) -> None:
    """Write the weights of an adapter whose ranks differ as those of one rank, the same model: rows of zeros are added.

    A map's scale, alpha / r or with rsLoRA alpha / sqrt(r), is multiplied into its B.
    """
    from peft.utils.other import get_pattern_key
    from safetensors.torch import save_file
    from torch.nn.functional import pad

    from trueup.models import adapters

    tensors, alphas = adapters.saved_tensors(source), config.get("alpha_pattern") or {}
    rank = max(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)
    for name, tensor in list(tensors.items()):
        if ".lora_A." not in name:
            continue
        b, own = name.replace(".lora_A.", ".lora_B."), len(tensor)
        alpha = alphas.get(get_pattern_key(list(alphas), module_of(name)), config["lora_alpha"])
        scale = alpha / (math.sqrt(own) if config.get("use_rslora") else own)
        tensors[name] = pad(tensor, (0, 0, 0, rank - own)).contiguous()
        tensors[b] = pad(tensors[b] * scale, (0, rank - own)).contiguous()
    config |= {"r": rank, "lora_alpha": rank, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})


def module_of(tensor: str) -> str:
    """The module that a saved tensor of LoRA belongs to, by its name in the base."""
    return tensor.removeprefix("base_model.model.").rpartition(".lora_")[0]
