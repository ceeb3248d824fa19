"""The one GPU that trueup runs on."""

from __future__ import annotations

import os

from trueup import ranks

VISIBLE = "CUDA_VISIBLE_DEVICES"
GIVEN = os.environ.get(VISIBLE)  # before we set it


def use_one_gpu() -> None:
    """Leave this process one GPU, the first of those it sees: set CUDA_VISIBLE_DEVICES to choose another.

    transformers' Trainer would spread a model over all of them by `nn.DataParallel`, which TRL refuses. Call it before
    torch looks for GPUs. Of several ranks each takes the GPU with its number among those it sees.
    """
    if ranks.count() > 1:
        return
    first = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    os.environ[VISIBLE] = first
