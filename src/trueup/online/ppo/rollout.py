"""Completions from the current policy, and all that is known of them before the update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trueup.chat.template import Chat
from trueup.errors import StageError
from trueup.online.ppo import mathematics
from trueup.online.ppo.batch import Batch, collate
from trueup.online.ppo.roles import Roles
from trueup.online.prompts import Prompt
from trueup.online.rewards import Part
from trueup.online.settings import Settings
from trueup.sampling.sample import as_sampled, engine
from trueup.sampling.types import Sampling


@dataclass(frozen=True)
class Rollout:
    """B prompts and a completion of each, drawn by the rollout engine."""

    prompts: list[Prompt]
    completions: list[list[int]]  # token ids, the end-of-turn token included
    texts: list[str]
    ended: list[bool]  # with the end-of-turn token
    ran: str  # what sampled them

    def batch(self, rows: list[int], pad_id: int) -> Batch:
        """These rows as tensors."""
        return collate([self.prompts[i].ids for i in rows], [self.completions[i] for i in rows], pad_id)

    def by_length(self, rows: Iterable[int]) -> list[int]:
        """`rows`, shortest first: neighbours need little padding. One order, however they came: a kept graph has it."""
        return sorted(rows, key=lambda i: (len(self.prompts[i].ids) + len(self.completions[i]), i))


@dataclass(frozen=True)
class Experience(Rollout):
    """A rollout and what its update needs; tensors are (B, T) on the CPU, zero on padding."""

    scores: Tensor  # (B,) rewards, the penalty for a missing end included
    parts: dict[str, float]  # the mean of each term of the reward
    mask: Tensor  # bool
    old_logps: Tensor
    entropy: Tensor
    token_kl: Tensor
    values: Tensor
    weights: Tensor  # truncated importance weights of the engine's tokens
    mismatch: Tensor  # |log-probability of the trainer - of the engine|
    advantages: Tensor  # whitened
    returns: Tensor
    graph: list[tuple[Tensor, Tensor | None]]  # logps and values with their graph, where the first epoch needs the same


def collect(
    roles: Roles,
    prompts: list[Prompt],
    reward: list[Part],
    settings: Settings,
    kl_coef: float,
    seed: int,
) -> Experience:
    """One completion a prompt, scored: rewards, old log-probabilities, KL, values, advantages and returns.

    Old log-probabilities are the trainer's own. Raises StageError when the engine's are too far from them.
    """
    rollout, sampled = _sample(roles, prompts, settings, seed)
    asked, chat = [prompt.messages for prompt in prompts], Chat(roles.tokenizer)
    encoded = [
        chat.sampled(messages, ids, finished=ended)
        for messages, ids, ended in zip(asked, rollout.completions, rollout.ended, strict=True)
    ]
    terms = {part.name: part(asked, rollout.texts, encoded) for part in reward}
    scores = torch.tensor([sum(term) for term in zip(*terms.values(), strict=True)])
    scores = scores - settings.missing_eos_penalty * (~torch.tensor(rollout.ended)).float()

    old_logps, reference_logps, entropy, values, mask, graph = _forward(roles, rollout, settings)
    sampler_logps = torch.zeros_like(old_logps).masked_scatter(mask, torch.tensor(sampled))
    mismatch = (old_logps - sampler_logps).abs()
    refuse_another_policy(mathematics.masked_mean(mismatch, mask).item(), settings)
    token_kl = mathematics.kl(old_logps, reference_logps, settings.kl_estimator)
    rewards = mathematics.token_rewards(scores, token_kl, mask, kl_coef)
    if settings.whiten_rewards:
        rewards = mathematics.whiten(rewards, mask, shift_mean=False)
    advantages, returns = mathematics.gae(rewards, values, mask, settings.gamma, settings.lam)
    return Experience(
        **vars(rollout),
        scores=scores,
        parts={name: sum(term) / len(term) for name, term in terms.items()},
        mask=mask,
        old_logps=old_logps,
        entropy=entropy,
        token_kl=token_kl,
        values=values,
        weights=mathematics.truncated_importance_weights(old_logps, sampler_logps, mask, settings.importance_cap),
        mismatch=mismatch,
        advantages=mathematics.whiten(advantages, mask),
        returns=returns,
        graph=graph,
    )


def _sample(roles: Roles, prompts: list[Prompt], settings: Settings, seed: int) -> tuple[Rollout, list[float]]:
    """The engine's completions, and its log-probability of each of their tokens, row after row."""
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=1.0,
        batch_size=len(prompts),
        seed=seed,
        engine=settings.engine,
        max_mismatch=settings.max_engine_mismatch,
    )
    run = engine(roles.model, roles.tokenizer, sampling)
    generated = run([prompt.ids for prompt in prompts], seed)
    answers = [as_sampled(roles.model, roles.tokenizer, p.ids, g) for p, g in zip(prompts, generated, strict=True)]
    rollout = Rollout(
        prompts=prompts,
        completions=[g.ids for g in generated],
        texts=[answer.text for answer in answers],
        ended=[answer.finish == "eos" for answer in answers],
        ran=run.ran,
    )
    return rollout, [logp for g in generated for logp in g.logps]


def refuse_another_policy(mismatch: float, settings: Settings) -> None:
    """Raise StageError when the engine's log-probabilities are too far (nats per token) from the trainer's."""
    if not mismatch <= settings.max_engine_mismatch:
        raise StageError(
            "ppo",
            found=f"the rollout engine {settings.engine} and the trainer differ by {mismatch:.2f} nats per token",
            expected=f"at most max_engine_mismatch, {settings.max_engine_mismatch}: the same policy, within rounding",
            next_step="set ppo.engine: generate",
        )


def _forward(
    roles: Roles, rollout: Rollout, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor | None]]]:
    """Old logps, reference logps, entropy, values and mask, each (B, T) on the CPU, from the trainer's own forward.

    Where one micro-batch is the whole rollout, the first epoch would compute these logps once more, from the same
    weights: the last element keeps their graph for it.
    """
    lengths = torch.tensor([len(ids) for ids in rollout.completions])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    filled = [torch.zeros(mask.shape) for _ in range(4)]
    order = rollout.by_length(range(len(rollout.prompts)))
    whole = len(order) <= settings.micro_batch_size and settings.num_mini_batches == 1
    graph: list[tuple[Tensor, Tensor | None]] = []
    for start in range(0, len(order), settings.micro_batch_size):
        rows = order[start : start + settings.micro_batch_size]
        batch = rollout.batch(rows, roles.tokenizer.pad_token_id).to(roles.device)
        reference_logps = roles.reference_logps(batch)
        with torch.set_grad_enabled(whole and not settings.gradient_checkpointing):
            logps, entropy, on_trunk = roles.policy(batch, with_entropy=True)
        if logps.requires_grad:
            graph.append((logps, on_trunk))
        values = on_trunk
        if values is None:
            with torch.no_grad(), roles.valuing():
                values = roles.values(batch)
        for tensor, part in zip(filled, (logps, reference_logps, entropy, values), strict=True):
            tensor[rows, : part.shape[1]] = part.detach().cpu()
    return filled[0], filled[1], filled[2], filled[3], mask, graph
