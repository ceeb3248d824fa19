"""The one GPU that trueup runs on."""

from __future__ import annotations

import os

VISIBLE = "CUDA_VISIBLE_DEVICES"
GIVEN = os.environ.get(VISIBLE)  # before we set it


def use_one_gpu() -> None:
    """Leave this process one GPU, the first of those it sees: set CUDA_VISIBLE_DEVICES to choose another.

    transformers' Trainer would spread a model over all of them by `nn.DataParallel`, which TRL refuses. Call it before
    torch looks for GPUs.
    """
    first = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    os.environ[VISIBLE] = first


def which_of_several() -> str:
    """A sentence that says which GPU is used, where this process was let see several; else empty. Imports torch."""
    import torch

    if not torch.cuda.is_available() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ""
    count = max(torch.cuda.device_count(), len((GIVEN or "").split(",")))
    if count == 1:
        return ""
    first = os.environ.get(VISIBLE) or "0"
    return (
        f"1 of {count} GPUs is used: {torch.cuda.get_device_name()}, number {first.split(',')[0]} ({VISIBLE} chooses)"
    )
