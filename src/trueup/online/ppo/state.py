"""Saving and restoring a run between steps, exactly: safetensors for tensors, JSON for numbers, a seal written last.

Learning rates, prompts and random numbers are functions of (seed, step) alone, so the step is all that is kept of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from trueup import ranks
from trueup.models import errors
from trueup.online.ppo.roles import Roles
from trueup.run.artifacts import write_json
from trueup.training import checkpoints, common


def save(
    folder: Path, step: int, roles: Roles, optimizer: torch.optim.Optimizer, numbers: dict[str, Any], keep: int = 2
) -> None:
    """Write checkpoint-<step> below `folder`: adapters, heads, Adam's moments, and `numbers`; drop all but `keep`.

    The policy's adapter is there a second time, in files of its own, for an evaluation to load. The first rank writes
    what all have.
    """

    def write() -> None:
        _save(folder, step, roles, optimizer, numbers)
        for old in sorted(folder.glob("checkpoint-*[0-9]"), key=checkpoints.step_of)[:-keep]:
            shutil.rmtree(old)

    ranks.from_first(write)


def _save(folder: Path, step: int, roles: Roles, optimizer: torch.optim.Optimizer, numbers: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    out = folder / f"checkpoint-{step}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {f"parameter.{i}": p for i, p in enumerate(_parameters(roles))}
    for i, parameter in enumerate(_parameters(roles)):
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    # copies, as bitsandbytes' moments of 8 bits share one table of codes, and a file may not
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    save_file(copies, out / "state.safetensors")
    write_json(out / "state.json", numbers)
    common.save_adapter(roles.model, out)
    checkpoints.seal(out)


def restore(folder: Path, roles: Roles, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """(step, numbers) of the newest whole checkpoint, its tensors put back; (0, {}) when there is none."""
    from safetensors.torch import load_file

    newest = ranks.from_first(lambda: checkpoints.latest_whole(folder))
    if newest is None:
        return 0, {}
    with errors.loading(str(newest), newest, f"delete {newest}, and type the same command again"):
        tensors = load_file(newest / "state.safetensors")
    with torch.no_grad():
        for i, parameter in enumerate(_parameters(roles)):
            parameter.copy_(tensors[f"parameter.{i}"])
    moments: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        kind, index, *rest = name.split(".")
        if kind == "optimizer":
            counts = rest[0] == "step" and not isinstance(optimizer, torch.optim.AdamW)  # bitsandbytes' is an int
            moments.setdefault(int(index), {})[rest[0]] = int(value) if counts else value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    numbers: dict[str, Any] = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    return checkpoints.step_of(newest), numbers


def _parameters(roles: Roles) -> list[torch.nn.Parameter]:
    return [*roles.policy_parameters(), *roles.value_parameters()]
