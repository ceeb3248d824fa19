"""Epochs x minibatches x micro-batches over one rollout."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trueup.online.ppo import mathematics
from trueup.online.ppo.roles import Roles
from trueup.online.ppo.rollout import Experience
from trueup.online.settings import Settings
from trueup.training import gradients, saving
from trueup.training.finite import SMALLEST_SCALE, not_finite, refuse_not_finite


def new_optimizer(roles: Roles, settings: Settings) -> torch.optim.Optimizer:
    """AdamW over the policy's and the value's own parameters, in that order; fp32 all, no weight decay."""
    groups: list[dict[str, Any]] = [
        {"params": roles.policy_parameters(), "lr": settings.learning_rate},
        {"params": roles.value_parameters(), "lr": settings.value_learning_rate},
    ]
    for group in groups:
        gradients.place(group["params"])
    return saving.adamw(groups, settings.optim, roles.device, eps=settings.adam_epsilon, weight_decay=0.0)


def new_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Scales the loss where gradients pass through fp16, which rounds small ones to 0 (Micikevicius et al. 2018).

    Elsewhere it does nothing.
    """
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)


def anneal(optimizer: torch.optim.Optimizer, settings: Settings, step: int) -> None:
    """Learning rates fall linearly to 0 over the run (Huang et al. 2024). `step` counts from 0."""
    left = 1 - step / settings.num_steps
    for group, rate in zip(optimizer.param_groups, (settings.learning_rate, settings.value_learning_rate), strict=True):
        group["lr"] = rate * left


def update(
    roles: Roles,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    experience: Experience,
    settings: Settings,
    seed: int,
) -> dict[str, float]:
    """Several epochs of clipped policy and value losses on one rollout; means over them for the log.

    A minibatch's loss is a mean over its tokens, whatever the micro-batches. Raises StageError before a step that is
    not finite, so that the weights stay good; with scaled losses such a step is left out, and the scale halved.
    """
    roles.model.train(settings.gradient_checkpointing)  # there is no dropout; checkpointing asks for train mode
    order = torch.Generator().manual_seed(seed)
    size = -(-len(experience.completions) // settings.num_mini_batches)
    stats: list[dict[str, float]] = []
    num_epochs = 0
    while num_epochs < settings.num_ppo_epochs:
        num_epochs += 1
        shuffled = torch.randperm(len(experience.completions), generator=order).tolist()
        for start in range(0, len(shuffled), size):
            rows = shuffled[start : start + size]
            stats.append(_minibatch(roles, optimizer, scaler, experience, settings, rows))
        update_kl = stats[-1]["update_kl"]
        if settings.max_update_kl is not None and update_kl > settings.max_update_kl:
            break
    means = {name: sum(row[name] for row in stats) / len(stats) for name in stats[0]}
    return means | {"update_kl": update_kl, "num_ppo_epochs": num_epochs}


def _minibatch(
    roles: Roles,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    experience: Experience,
    settings: Settings,
    rows: list[int],
) -> dict[str, float]:
    num_tokens = experience.mask[rows].sum().item()
    optimizer.zero_grad(set_to_none=False)
    rows = experience.by_length(rows)
    size = settings.micro_batch_size
    parts = [_Part(experience, rows[i : i + size], roles) for i in range(0, len(rows), size)]
    totals = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction", "value_clip_fraction", "update_kl"), 0.0)
    for part in parts:
        _add(totals, _of_policy(roles, scaler, settings, part, num_tokens))
    if roles.value_on == "adapter":
        with roles.valuing():  # once: each switch of adapters walks over all layers
            for part in parts:
                _add(totals, _of_value(roles, scaler, settings, part, num_tokens))
    scaler.unscale_(optimizer)
    for group in optimizer.param_groups:
        norm = torch.nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
        if not scaler.is_enabled() or scaler.get_scale() < SMALLEST_SCALE:
            refuse_not_finite("ppo", "the gradient's norm", norm, in_fp16=scaler.is_enabled())
    scaler.step(optimizer)
    scaler.update()
    return totals


class _Part:
    """A micro-batch on the device, and what the rollout knows of its rows."""

    def __init__(self, experience: Experience, rows: list[int], roles: Roles) -> None:
        self.experience, self.rows = experience, rows
        self.batch = experience.batch(rows, roles.tokenizer.pad_token_id).to(roles.device)
        self.mask = self.batch.mask

    def old(self, name: str) -> Tensor:
        """A tensor of the rollout, (rows, tokens), no wider than the micro-batch."""
        values: Tensor = getattr(self.experience, name)
        return values[self.rows, : self.mask.shape[1]].to(self.mask.device)


def _of_policy(
    roles: Roles, scaler: torch.amp.GradScaler, settings: Settings, part: _Part, num_tokens: float
) -> dict[str, float]:
    """Add a micro-batch's part of the policy's gradients, and of the value's where its head is on the policy's trunk;
    return its part of the minibatch's means.
    """
    graph = part.experience.graph
    with saving.on_cpu(settings.activation_offloading, roles.device):
        logps, values = graph.pop() if graph else roles.policy(part.batch)[::2]
    old_logps = part.old("old_logps")
    losses, clipped = mathematics.policy_loss(
        logps, old_logps, part.old("advantages"), part.mask, settings.cliprange, part.old("weights")
    )
    loss = losses.sum() / num_tokens
    update_kl = mathematics.kl(old_logps, logps.detach(), "k3").masked_fill(~part.mask, 0)
    means = {
        "policy_loss": loss,
        "clip_fraction": clipped.sum() / num_tokens,
        "update_kl": update_kl.sum() / num_tokens,
    }
    if values is not None:
        means |= _value_means(values, settings, part, num_tokens)
        loss = loss + means["value_loss"]
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return _as_numbers(means, scaler)


def _of_value(
    roles: Roles, scaler: torch.amp.GradScaler, settings: Settings, part: _Part, num_tokens: float
) -> dict[str, float]:
    """The same of the value, while its own adapter is in use."""
    with saving.on_cpu(settings.activation_offloading, roles.device):
        values = roles.values(part.batch)
    means = _value_means(values, settings, part, num_tokens)
    scaler.scale(means["value_loss"]).backward()  # type: ignore[no-untyped-call]
    return _as_numbers(means, scaler)


def _value_means(values: Tensor, settings: Settings, part: _Part, num_tokens: float) -> dict[str, Tensor]:
    losses, clipped = mathematics.value_loss(
        values, part.old("values"), part.old("returns"), part.mask, settings.cliprange_value
    )
    total = settings.vf_coef * losses.sum() / num_tokens
    return {"value_loss": total, "value_clip_fraction": clipped.sum() / num_tokens}


def _as_numbers(means: dict[str, Tensor], scaler: torch.amp.GradScaler) -> dict[str, float]:
    """For all of them the host waits once. Raises StageError when a loss is not finite."""
    found = torch.stack([value.detach().float() for value in means.values()]).tolist()
    numbers = dict(zip(means, found, strict=True))
    for name, said in (("policy_loss", "the policy's loss"), ("value_loss", "the value's loss")):
        if not math.isfinite(numbers.get(name, 0.0)):
            raise not_finite("ppo", f"{said} is {numbers[name]}", in_fp16=scaler.is_enabled())
    return numbers


def _add(totals: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        totals[name] += value
