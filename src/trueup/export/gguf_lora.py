"""A LoRA alone as GGUF, to load beside the GGUF of its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.export import gguf_models

PREFIX = "base_model.model."


def write(adapter: Path, merged_or_base_config: Path, out: Path, name: str = "model") -> Path:
    """Write the peft LoRA saved in `adapter` as `out`/NAME-lora-F32.gguf; returns that path.

    `merged_or_base_config` is the folder of the model it was trained on, or of the merged one: config.json is read.
    llama.cpp adds scale x B A x with one scale for the whole file, alpha over the rank of B; where peft scales a module
    otherwise (rsLoRA, alpha and rank patterns), the ratio goes into its B. Raises ModelError for what is no plain LoRA.
    """
    import gguf
    from peft import PeftConfig
    from safetensors.torch import load_file
    from transformers import AutoConfig

    settings = PeftConfig.from_pretrained(adapter)
    config = AutoConfig.from_pretrained(merged_or_base_config, trust_remote_code=False)
    tensors = load_file(adapter / "adapter_model.safetensors")
    if faults := _faults(settings, config, list(tensors)):
        raise ModelError(
            str(adapter),
            found="\n  ".join(faults),
            expected="a LoRA on linear layers of a tested architecture",
            next_step="use the GGUF of the merged model",
        )
    names = gguf_models.Names(config)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{gguf_models.file_name(name)}-lora-F32.gguf"
    writer = gguf.GGUFWriter(path, gguf_models.ARCHITECTURES[config.model_type].name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(settings.lora_alpha))
    for key, down in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        title = names.gguf(f"{module}.weight")
        up = tensors[key.replace(".lora_A.", ".lora_B.")].float()
        up = up * (_scale(settings, module, down.shape[0]) * down.shape[0] / settings.lora_alpha)
        writer.add_tensor(f"{title}.lora_a", down.float().numpy())
        writer.add_tensor(f"{title}.lora_b", names.laid_out(f"{module}.weight", up).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _scale(settings: Any, module: str, rank: int) -> float:
    """What peft multiplies B A x by, for one module."""
    from peft.utils.other import get_pattern_key

    patterns = settings.alpha_pattern or {}
    alpha = float(patterns.get(get_pattern_key(patterns.keys(), module), settings.lora_alpha))
    return alpha / (rank**0.5 if settings.use_rslora else rank)


def _faults(settings: Any, config: Any, keys: list[str]) -> list[str]:
    if config.model_type not in gguf_models.ARCHITECTURES:
        return gguf_models.faults(config, ())
    found = []
    if settings.peft_type != "LORA":
        found.append(f"an adapter of type {settings.peft_type}")
    for name in ("use_dora", "modules_to_save", "trainable_token_indices", "fan_in_fan_out"):
        if value := getattr(settings, name, None):
            found.append(f"{name} {json.dumps(value, default=str)}")
    if settings.bias != "none":
        found.append(f"trained biases (bias: {settings.bias})")
    linear = (".lora_A.weight", ".lora_B.weight")
    if odd := [key for key in keys if not key.endswith(linear) or ".layers." not in key]:
        found.append(f"tensors that are no LoRA on a layer's linear modules: {', '.join(odd[:3])}")
    return found
