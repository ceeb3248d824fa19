"""The mathematics of PPO on completions: pure functions of tensors, each with its source.

Shapes: B completions of at most T tokens. Position t of every (B, T) tensor is about the t-th completion token y_t and
the state s_t = (prompt, y_<t) it was chosen in. `mask` is True on real tokens, the end-of-turn token included;
completions are padded on the right. Padding may hold anything: no result depends on it, and results are zero there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trueup.online.settings import KLEstimator


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens: (B, T), (B, T) -> ()."""
    return values.masked_fill(~mask, 0).sum() / mask.sum()


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Biased variance over real tokens, as `tf.nn.moments` has it (Huang et al. 2024): (B, T), (B, T) -> ()."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Unit variance over real tokens, and zero mean unless `shift_mean` is False: (B, T) -> (B, T).

    Advantages are whitened with the mean shifted, rewards without (Huang et al. 2024).
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_var(values, mask) + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0)


def kl(logps: Tensor, reference_logps: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """KL(policy || reference) of each token, in nats, from tokens the policy drew: (B, T), (B, T) -> (B, T).

    Schulman 2020, "Approximating KL divergence", with r = reference / policy: k1 = -log r (unbiased),
    k2 = (log r)^2 / 2 (biased, low variance), k3 = (r - 1) - log r (unbiased, never negative).
    """
    log_ratio = reference_logps - logps
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(scores: Tensor, token_kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """r_t = -beta KL_t, plus the completion's score at its last token: (B,), (B, T), (B, T) -> (B, T).

    Eq. 2 of Ziegler et al. 2019, spread over the tokens.
    """
    rewards = (-coefficient * token_kl).masked_fill(~mask, 0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.to(rewards).unsqueeze(1))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T), by generalized advantage estimation, eq. 11 and 12 of Schulman et al. 2016.

    delta_t = r_t + gamma V(s_t+1) - V(s_t);  A_t = delta_t + gamma lam A_t+1;  R_t = A_t + V(s_t). The state after the
    last real token is terminal: its value is 0, whatever the value head says there.
    """
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = delta + gamma * lam * next_advantage
        next_value, next_advantage = values[:, t], advantages[:, t]
    return advantages, advantages + values


def policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(loss, clipped), each (B, T): the clipped surrogate of each token, eq. 7 of Schulman et al. 2017, negated.

    `weights` (B, T), when given, are the truncated importance weights of the sampler. `clipped` marks the tokens whose
    gradient the clipping has cut off.
    """
    log_ratio = (logps - old_logps).masked_fill(~mask, 0)
    ratio = log_ratio.exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = torch.maximum(unclipped, clipped)
    if weights is not None:
        loss = loss * weights
    return loss.masked_fill(~mask, 0), (clipped > unclipped) & mask


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """(loss, clipped), each (B, T): half the squared error, the worse of the value and the clipped value.

    The value may move at most `clip` from `old_values` to gain anything (Huang et al. 2024; OpenAI baselines' PPO2).
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    unclipped, clipped = (values - returns) ** 2, (near - returns) ** 2
    return 0.5 * torch.maximum(unclipped, clipped).masked_fill(~mask, 0), (clipped > unclipped) & mask


def truncated_importance_weights(logps: Tensor, sampler_logps: Tensor, mask: Tensor, cap: float) -> Tensor:
    """min(policy / sampler, cap) of each token, 1 on padding: (B, T) -> (B, T). Ionides 2008, eq. 2.

    `logps` are the trainer's, `sampler_logps` the rollout engine's, of the same tokens under the same weights.
    """
    return (logps - sampler_logps).masked_fill(~mask, 0).exp().clamp(max=cap)


def next_kl_coefficient(coefficient: float, kl: float, target: float, gain: float = 0.1) -> float:
    """The controller of Ziegler et al. 2019, section 2.2: beta (1 + K e), with e = clip(KL / target - 1, -0.2, 0.2)."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + gain * error)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over real tokens; 1 is perfect, 0 no better than a constant."""
    return 1 - masked_var(returns - values, mask) / masked_var(returns, mask).clamp(min=1e-8)
