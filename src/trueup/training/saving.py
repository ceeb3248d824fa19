"""Memory for time: what waits for the backward pass in the CPU's memory, and optimizers with small moments."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from trueup.errors import ConfigError

PAGED = "paged_"  # how the names of optimizers begin whose moments move between a GPU and its host
EIGHT_BITS = "8bit"


def refuse_without_gpu(stage: str, optim: str, offloads: bool, *, on_gpu: bool) -> None:
    """Raise ConfigError where a section asks for what only a GPU has; decided before any weights are loaded."""
    if on_gpu:
        return
    if optim.startswith(PAGED):
        raise ConfigError(
            f"{stage}.optim",
            found=f"{optim}, and no GPU",
            expected="an optimizer that a CPU has: a paged one moves its moments between a GPU and the host",
            next_step=f"--set {stage}.optim={optim.removeprefix(PAGED)}",
        )
    if offloads:
        raise ConfigError(
            f"{stage}.activation_offloading",
            found="true, and no GPU",
            expected="false on a CPU, where hidden states are in its memory already",
            next_step=f"--set {stage}.activation_offloading=false",
        )


def on_cpu(wanted: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Within this, what autograd saves waits in the CPU's memory, pinned where `device` is a GPU; else nothing changes.

    Meant for gradient checkpointing, where that is one hidden state a layer: each is copied away after its layer, and
    back before the layer is computed again.
    """
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda") if wanted else nullcontext()


def install(trainer: Any) -> None:
    """Let a TRL trainer compute its loss under `on_cpu`."""
    usual, device = trainer.compute_loss, trainer.model.device

    @functools.wraps(usual)
    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        with on_cpu(True, device):
            return usual(*args, **kwargs)

    trainer.compute_loss = compute_loss


def adamw(groups: Iterable[dict[str, Any]], optim: str, device: torch.device, **options: Any) -> torch.optim.Optimizer:
    """AdamW over `groups` by the name that a section gives it: torch's, or bitsandbytes' with moments of 8 bits.

    On a GPU torch's is fused: one kernel for all, which keeps no copies of what it updates.
    """
    if EIGHT_BITS not in optim:
        return torch.optim.AdamW(groups, fused=device.type == "cuda" or None, **options)
    from bitsandbytes.optim import AdamW

    made: torch.optim.Optimizer = AdamW(list(groups), optim_bits=8, is_paged=optim.startswith(PAGED), **options)
    return made
