"""Ranks that cannot work together are refused, by name, before anything trains."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

from trueup import ranks
from trueup.errors import StageError


def refuse_split_parameters() -> None:
    """Raise StageError under launchers that split parameters, gradients or optimizers between ranks."""
    for name, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise StageError(
                f"{name}, {variable}",
                found="log-probabilities, the reference proof and saved adapters are computed from whole parameters",
                expected="the whole base on each GPU (DDP)",
                next_step="accelerate launch --multi_gpu, or configs/accelerate/ddp.yaml; see docs/many-gpus.md",
            )


def refuse_different(doing: str, facts: dict[str, Any]) -> None:
    """Raise StageError unless every rank has the same `facts`, and a GPU to itself or none.

    `facts` are names of versions, files or settings, and their values, which may be such mappings themselves.
    """
    all_facts, found = ranks.gather(dict(_flat(facts | {"device": _device()}))), _on_one_gpu()
    for number, other in enumerate(all_facts[1:], start=1):
        for name in sorted(all_facts[0].keys() | other.keys()):
            here, there = all_facts[0].get(name, "missing"), other.get(name, "missing")
            if here != there:
                found.append(f"{name}: {_short(here)} on rank 0, {_short(there)} on rank {number}")
    if found:
        raise StageError(
            f"{doing}, {ranks.count()} ranks",
            found="\n  ".join(found),
            expected="the same versions, files and settings on every rank, and one GPU for each",
            next_step="install the same versions everywhere, put the run into a folder that all machines share, and "
            "start as many processes as there are GPUs",
        )


def _flat(facts: dict[str, Any], parents: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{parents}{name}.")
        else:
            yield f"{parents}{name}", value


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _on_one_gpu() -> list[str]:
    """A line for each GPU that several ranks have."""
    import torch

    own = str(torch.cuda.get_device_properties().uuid) if torch.cuda.is_available() else ""
    holders: dict[tuple[str, str], list[int]] = {}
    for number, gpu in enumerate(ranks.gather((socket.gethostname(), own))):
        holders.setdefault(gpu, []).append(number)
    return [
        f"ranks {' and '.join(map(str, numbers))} are on the same GPU of {host}"
        for (host, uuid), numbers in holders.items()
        if uuid and len(numbers) > 1
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
