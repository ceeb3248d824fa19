"""What helps only on a GPU, in two steps: `accelerate` for a base just loaded, `fuse` once it has adapters.

One place decides what runs, from the device, the model and TRUEUP_GPU, and `described` says what was decided.
With TRUEUP_GPU=portable it is none, and transformers' and peft's own forward run.
"""

from __future__ import annotations

from typing import Any

from trueup.gpu.chosen import wanted, wants

__all__ = ["accelerate", "described", "fuse", "wanted"]


def accelerate(model: Any) -> None:
    """Make a causal model or classifier, just loaded onto a GPU, compute no padding, by attention that suits the GPU.

    On a CPU, and with TRUEUP_GPU=portable, nothing is changed. A second call changes nothing.
    """
    whole = _bare(model)
    if not _on_gpu(whole) or hasattr(whole, "gpu_parts"):
        return
    from trueup.gpu import attention, rows

    whole.gpu_parts = parts = {"padding": "computed (TRUEUP_GPU)", "attention": whole.config._attn_implementation}
    if not wanted():
        return
    if whole.config._attn_implementation == "sdpa":
        attention.register()
        whole.set_attn_implementation(attention.NAME)
    if wants("rows"):
        reason = rows.why_not(whole)
        parts["padding"] = f"computed ({reason})" if reason else "left out"
        if not reason:
            rows.install(whole)
            parts["attention"] = "sdpa, row by row"
    if wants("varlen"):
        why = "padding is computed" if parts["padding"] != "left out" else attention.why_not_varying(whole)
        parts["attention"] += f", since {why}: not varlen" if why else ""
        if not why:
            parts["attention"] = "sdpa, all rows in one call"


def fuse(model: Any) -> None:
    """Make the LoRA layers of a peft model on a GPU, as they are now, compute in the compute dtype and together.

    Adapters may be added, switched and turned off afterwards; what is no plain LoRA is left to peft.
    """
    if not _on_gpu(model):
        return
    from trueup.gpu import compiled, lora

    parts = _bare(model).gpu_parts
    parts["lora"] = "by peft (TRUEUP_GPU)"
    if wants("lora"):
        num_fused, num_layers, reasons = lora.install(model)
        parts["lora"] = f"fused in {num_fused} of {num_layers} layers" + (f" ({reasons} by peft)" if reasons else "")
    if wants("compile"):
        parts["compiled"] = f"{compiled.install(model)} norms and MLPs"


def described(model: Any) -> dict[str, str]:
    """What runs, for the record and for one line; empty on a CPU."""
    return dict(getattr(_bare(model), "gpu_parts", {}))


def _bare(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _on_gpu(model: Any) -> bool:
    return bool(model.device.type == "cuda")
