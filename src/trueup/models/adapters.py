"""Adapters are the roles on the shared base: making one, loading one, saving one, switching between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.models import errors, targets
from trueup.run.run_file import AdapterConfig


def peft_config(base: Any, config: AdapterConfig, *, task_type: str = "CAUSAL_LM") -> Any:
    """The peft configuration of `adapter` on `base`. DoRA separates magnitude from direction; AdaLoRA adapts the rank.

    AdaLoRA's schedule is set when the number of steps is known, by `trueup.training.adalora`. Raises ModelError as
    `targets.of_base` does.
    """
    from peft import AdaLoraConfig, LoraConfig

    common: dict[str, Any] = {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": targets.of_base(base, config),
        "task_type": task_type,
    }
    if config.kind == "adalora":
        return AdaLoraConfig(**common, init_r=config.r, target_r=max(config.r // 2, 1), total_step=100)
    return LoraConfig(**common, use_dora=config.kind == "dora")


def new_adapter(base: Any, config: AdapterConfig, **options: Any) -> Any:
    """`base` with a fresh trainable adapter named "default", in fp32."""
    from peft import get_peft_model

    model = get_peft_model(base, peft_config(base, config, **options))
    trainable_to_fp32(model)
    return model


def new_like(base: Any, folder: Path, *, task_type: str) -> Any:
    """`base` with a trainable adapter "default" for `task_type`, its shape and weights those saved in `folder`."""
    from peft import PeftConfig, get_peft_model

    with errors.loading(str(folder), folder, errors.of_adapter(folder)):
        config = PeftConfig.from_pretrained(str(folder))
    config.task_type, config.inference_mode = task_type, False
    model = get_peft_model(base, config)
    copy_into(model, saved_tensors(folder))
    return model


def copy_into(model: Any, tensors: dict[str, Any], name: str = "default") -> None:
    """Copy saved tensors, all in fp32, over those of adapter `name`, which has their shapes."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key, tensor in tensors.items():
            found = parameters.get(f"{key.removesuffix('.weight')}.{name}.weight")
            if found is None:
                raise ModelError(key, found="no such tensor in the model", expected="an adapter of the same kind")
            found.copy_(tensor)


def load_adapter(base: Any, folder: Path, *, trainable: bool) -> Any:
    """`base` with the adapter saved in `folder`, named "default". Raises ModelError when nothing would train."""
    from peft import PeftModel

    with errors.loading(str(folder), folder, errors.of_adapter(folder)):
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)
    trainable_to_fp32(model)
    if trainable and not any(p.requires_grad for p in model.parameters()):
        raise ModelError(str(folder), found="0 trainable parameters", expected="a trainable adapter")
    return model


def load_frozen(model: Any, folder: Path, name: str) -> None:
    """The adapter saved in `folder` beside those of `model`, as `name`, in fp32 and never trained."""
    with errors.loading(str(folder), folder, errors.of_adapter(folder)):
        model.load_adapter(str(folder), name, is_trainable=False)
    trainable_to_fp32(model)


def trainable_to_fp32(model: Any) -> None:
    """Adapter weights in fp32: AdamW on bf16 rounds most small updates away."""
    import torch

    for name, parameter in model.named_parameters():
        if "lora_" in name or parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def adapter_tensors(model: Any, name: str) -> dict[str, Any]:
    """The tensors of adapter `name` by their names in a saved file, in fp32 on the CPU."""
    import torch
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, adapter_name=name)
    return {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in sorted(state.items())}


def tensors_sha256(tensors: dict[str, Any]) -> str:
    """One hash of names, shapes and fp32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key}{tuple(tensors[key].shape)}".encode())
        digest.update(tensors[key].float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def saved_tensors(folder: Path) -> dict[str, Any]:
    """The tensors of a saved adapter, in fp32."""
    from safetensors.torch import load_file

    with errors.loading(str(folder), folder, errors.of_adapter(folder)):
        return {key: value.float() for key, value in load_file(folder / "adapter_model.safetensors").items()}


@contextmanager
def using(model: Any, name: str | None) -> Iterator[None]:
    """Within the block, adapter `name` is active, or none of them (the bare base) for None. Always restores.

    peft's set_adapter flips requires_grad; it is restored as well.
    """
    before, grads = model.active_adapter, {p: p.requires_grad for p in model.parameters()}
    try:
        if name is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(name)
            yield
    finally:
        model.set_adapter(before)
        for parameter, flag in grads.items():
            parameter.requires_grad_(flag)
