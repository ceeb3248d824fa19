"""Epochs x minibatches x micro-batches over one rollout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueup import ranks
from trueup.online.ppo import mathematics
from trueup.online.ppo.roles import Roles
from trueup.online.ppo.rollout import Experience
from trueup.online.settings import Settings
from trueup.training import gradients
from trueup.training.finite import refuse_not_finite


def new_optimizer(roles: Roles, settings: Settings) -> torch.optim.AdamW:
    """AdamW over the policy's and the value's own parameters, in that order; fp32 all, no weight decay."""
    groups: list[dict[str, Any]] = [
        {"params": roles.policy_parameters(), "lr": settings.learning_rate},
        {"params": roles.value_parameters(), "lr": settings.value_learning_rate},
    ]
    for group in groups:
        gradients.place(group["params"])
    return torch.optim.AdamW(groups, eps=settings.adam_epsilon, weight_decay=0.0)


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

    A minibatch's loss is a mean over its tokens, whatever the micro-batches and the number of ranks, which share its
    rows and add up their gradients. Raises StageError before a step that is
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
    totals = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction", "value_clip_fraction", "update_kl"), 0.0)
    optimizer.zero_grad(set_to_none=False)
    rows = ranks.share(experience.by_length(rows))
    for start in range(0, len(rows), settings.micro_batch_size):
        part = rows[start : start + settings.micro_batch_size]
        for name, total in _micro_batch(roles, scaler, experience, settings, part, num_tokens).items():
            totals[name] += total
    ranks.add_up_gradients(p for group in optimizer.param_groups for p in group["params"])
    everywhere = ranks.gather(totals)
    totals = {name: sum(one[name] for one in everywhere) for name in totals}
    scaler.unscale_(optimizer)
    for group in optimizer.param_groups:
        norm = torch.nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
        if not scaler.is_enabled() or scaler.get_scale() < 1:
            refuse_not_finite("ppo", "the gradient's norm", norm)
    scaler.step(optimizer)
    scaler.update()
    return totals


def _micro_batch(
    roles: Roles,
    scaler: torch.amp.GradScaler,
    experience: Experience,
    settings: Settings,
    rows: list[int],
    num_tokens: float,
) -> dict[str, float]:
    """Add this micro-batch's part of the minibatch's gradients; return its part of the minibatch's means."""
    batch = experience.batch(rows, roles.tokenizer.pad_token_id).to(roles.device)
    width = batch.mask.shape[1]

    def old(values: Tensor) -> Tensor:
        return values[rows, :width].to(roles.device)

    old_logps, old_values, returns = old(experience.old_logps), old(experience.values), old(experience.returns)
    logps, values = experience.graph.pop() if experience.graph else roles.policy(batch)[::2]
    policy, clipped = mathematics.policy_loss(
        logps, old_logps, old(experience.advantages), batch.mask, settings.cliprange, old(experience.weights)
    )
    policy_loss = policy.sum() / num_tokens
    refuse_not_finite("ppo", "the policy's loss", policy_loss)
    if values is None:
        scaler.scale(policy_loss).backward()  # type: ignore[no-untyped-call]
        with roles.valuing():  # backward inside: gradient checkpointing runs the forward again
            values = roles.values(batch)
            value_loss, value_clipped = _value_loss(values, old_values, returns, batch.mask, settings, num_tokens)
            scaler.scale(value_loss).backward()  # type: ignore[no-untyped-call]
    else:
        value_loss, value_clipped = _value_loss(values, old_values, returns, batch.mask, settings, num_tokens)
        scaler.scale(policy_loss + value_loss).backward()  # type: ignore[no-untyped-call]
    update_kl = mathematics.kl(old_logps, logps.detach(), "k3").masked_fill(~batch.mask, 0)
    return {
        "policy_loss": policy_loss.item(),
        "value_loss": value_loss.item(),
        "clip_fraction": clipped.sum().item() / num_tokens,
        "value_clip_fraction": value_clipped.sum().item() / num_tokens,
        "update_kl": update_kl.sum().item() / num_tokens,
    }


def _value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, settings: Settings, num_tokens: float
) -> tuple[Tensor, Tensor]:
    loss, clipped = mathematics.value_loss(values, old_values, returns, mask, settings.cliprange_value)
    total = settings.vf_coef * loss.sum() / num_tokens
    refuse_not_finite("ppo", "the value's loss", total)
    return total, clipped
