"""AdaLoRA (Zhang et al. 2023): rank goes where it is needed while SFT trains; what is saved is LoRA of those ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trueup.training.common import sort_targets


class Allocate(TrainerCallback):  # type: ignore[misc]
    """Calls peft's rank allocation after each optimizer step, over the steps this run will take.

    No trainer does: without it an AdaLoRA adapter keeps the rank it began with, and nothing says so.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        config = kwargs["model"].peft_config["default"]
        config.total_step, config.tinit, config.tfinal = state.max_steps, state.max_steps // 10, state.max_steps // 3

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].base_model.update_and_allocate(state.global_step)  # gradients are still there


def save_as_lora(model: Any, out: Path) -> None:
    """Save adapter "default" as LoRA with a rank of its own for each map, which every stage and engine can load.

    AdaLoRA adds scaling / r B diag(E) A to a map; singular values that were taken away are 0, and their rows are left
    out. A map that lost all of them keeps one of zeros.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    config = model.peft_config["default"]
    tensors, ranks = {}, {}
    for name, module in model.named_modules():
        if not hasattr(module, "lora_E") or "default" not in module.lora_E:
            continue
        values = module.lora_E["default"].detach().float()  # (r, 1)
        kept = values[:, 0].nonzero()[:, 0]
        if len(kept) == 0:
            kept = kept.new_zeros(1)
        scale = module.scaling["default"] / (module.ranknum["default"].item() + 1e-5)
        a = module.lora_A["default"].detach().float() * values * scale
        tensors[f"{name}.lora_A.weight"] = a[kept].cpu().contiguous()
        tensors[f"{name}.lora_B.weight"] = module.lora_B["default"].detach().float()[:, kept].cpu().contiguous()
        ranks[name.removeprefix("base_model.model.")] = len(kept)
    LoraConfig(
        r=config.r,
        lora_alpha=config.r,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),  # alpha / r = 1: the scale is in A
        target_modules=config.target_modules,
        lora_dropout=config.lora_dropout,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        inference_mode=True,
    ).save_pretrained(str(out))
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    sort_targets(out)
