"""Completions from the current policy, and all that is known of them before the update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trueup.ppo import mathematics
from trueup.ppo.batch import Batch, collate
from trueup.ppo.rewards import Messages, Part
from trueup.ppo.roles import Roles
from trueup.ppo.settings import Settings
from trueup.rollout.generate import Sampling, engine


@dataclass(frozen=True)
class Prompt:
    """A prompt as messages and as token ids, with the generation prompt."""

    id: str
    messages: Messages
    ids: list[int]


@dataclass(frozen=True)
class Experience:
    """B completions and what the update needs of them; tensors are (B, T) on the CPU, zero on padding."""

    prompts: list[Prompt]
    completions: list[list[int]]
    texts: list[str]
    ended: list[bool]  # with the end-of-turn token
    scores: Tensor  # (B,) rewards, the penalty for a missing end included
    parts: dict[str, float]  # the mean of each term of the reward
    mask: Tensor
    old_logps: Tensor
    entropy: Tensor
    token_kl: Tensor
    values: Tensor
    weights: Tensor  # truncated importance weights of the engine's tokens
    mismatch: Tensor  # |log-probability of the trainer - of the engine|
    advantages: Tensor
    returns: Tensor

    def batch(self, rows: list[int], pad_id: int) -> Batch:
        return collate([self.prompts[i].ids for i in rows], [self.completions[i] for i in rows], pad_id)

    def by_length(self, rows: list[int]) -> list[int]:
        """`rows`, shortest first: neighbours need little padding."""
        return sorted(rows, key=lambda i: len(self.prompts[i].ids) + len(self.completions[i]))


def collect(
    roles: Roles,
    prompts: list[Prompt],
    reward: list[Part],
    settings: Settings,
    kl_coef: float,
    seed: int,
) -> Experience:
    """One completion a prompt, scored: rewards, old log-probabilities, KL, values, advantages and returns."""
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=1.0,
        batch_size=len(prompts),
        seed=seed,
        engine=settings.engine,
    )
    generated = engine(roles.model, roles.tokenizer, sampling)([prompt.ids for prompt in prompts], seed)
    completions, eos_id = [g.ids for g in generated], roles.tokenizer.eos_token_id
    texts = [roles.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in completions]
    ended = [ids[-1] == eos_id for ids in completions]
    terms = {part.name: part([prompt.messages for prompt in prompts], texts) for part in reward}
    scores = torch.tensor([sum(term) for term in zip(*terms.values(), strict=True)])
    scores = scores - settings.missing_eos_penalty * (~torch.tensor(ended)).float()

    old_logps, reference_logps, entropy, values, mask = _forward(roles, prompts, completions, settings.micro_batch_size)
    sampler_logps = torch.zeros_like(old_logps).masked_scatter(
        mask, torch.tensor([logp for g in generated for logp in g.logps])
    )
    token_kl = mathematics.kl(old_logps, reference_logps, settings.kl_estimator)
    rewards = mathematics.token_rewards(scores, token_kl, mask, kl_coef)
    if settings.whiten_rewards:
        rewards = mathematics.whiten(rewards, mask, shift_mean=False)
    advantages, returns = mathematics.gae(rewards, values, mask, settings.gamma, settings.lam)
    return Experience(
        prompts=prompts,
        completions=completions,
        texts=texts,
        ended=ended,
        scores=scores,
        parts={name: sum(term) / len(term) for name, term in terms.items()},
        mask=mask,
        old_logps=old_logps,
        entropy=entropy,
        token_kl=token_kl,
        values=values,
        weights=mathematics.truncated_importance_weights(old_logps, sampler_logps, mask, settings.importance_cap),
        mismatch=(old_logps - sampler_logps).abs(),
        advantages=mathematics.whiten(advantages, mask),
        returns=returns,
    )


def _forward(
    roles: Roles, prompts: list[Prompt], completions: list[list[int]], micro_batch_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Old logps, reference logps, entropy, values and mask, each (B, T) on the CPU, from the trainer's own forward."""
    shape = (len(prompts), max(map(len, completions)))
    filled = [torch.zeros(shape) for _ in range(4)]
    mask = torch.arange(shape[1]) < torch.tensor([len(ids) for ids in completions]).unsqueeze(1)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids) + len(completions[i]))
    pad_id = roles.tokenizer.pad_token_id
    for start in range(0, len(order), micro_batch_size):
        rows = order[start : start + micro_batch_size]
        batch = collate([prompts[i].ids for i in rows], [completions[i] for i in rows], pad_id).to(roles.device)
        with torch.no_grad():
            logps, entropy, values = roles.policy(batch)
            if values is None:
                with roles.valuing():
                    values = roles.values(batch)
            found = (logps, roles.reference_logps(batch), entropy, values)
        for whole, part in zip(filled, found, strict=True):
            whole[rows, : part.shape[1]] = part.cpu()
    return filled[0], filled[1], filled[2], filled[3], mask
