"""PPO's mathematics against values worked by hand and closed forms; and each check fails when its bug is planted."""

import inspect
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional

from trueup.models import head
from trueup.online.ppo import mathematics

GARBAGE = 99.0  # on padding; no result may depend on it
MASK = torch.tensor([[True, True, True], [True, False, False]])


def check_whitening(m: ModuleType) -> None:
    # real tokens 1, 3, 5, 7: mean 4, biased variance (9 + 1 + 1 + 9) / 4 = 5
    values = torch.tensor([[1.0, 3.0, 5.0], [7.0, GARBAGE, GARBAGE]])
    scaled = torch.tensor([[-3.0, -1.0, 1.0], [3.0, 0.0, 0.0]]) / math.sqrt(5)
    torch.testing.assert_close(m.whiten(values, MASK), scaled)
    unshifted = torch.where(MASK, scaled + 4, 0.0)
    torch.testing.assert_close(m.whiten(values, MASK, shift_mean=False), unshifted)


def check_kl_of_one_token(m: ModuleType) -> None:
    # policy p = 0.5, reference q = 0.25: log r = -ln 2
    logps, reference = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert m.kl(logps, reference, "k1").item() == pytest.approx(math.log(2))
    assert m.kl(logps, reference, "k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    assert m.kl(logps, reference, "k3").item() == pytest.approx(0.5 - 1 + math.log(2))


def check_kl_in_expectation(m: ModuleType) -> None:
    # p = (0.8, 0.2), q = (0.5, 0.5): k1 and k3 average over p to sum p ln(p / q) exactly
    p, q = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    exact = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    for estimator in ("k1", "k3"):
        assert (p * m.kl(p.log(), q.log(), estimator)).sum().item() == pytest.approx(exact)


def check_token_rewards(m: ModuleType) -> None:
    kl = torch.tensor([[1.0, 2.0, 3.0], [4.0, GARBAGE, GARBAGE]])
    rewards = m.token_rewards(torch.tensor([10.0, 20.0]), kl, MASK, 0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, -0.2, 9.7], [19.6, 0.0, 0.0]]))


def check_gae(m: ModuleType) -> None:
    # gamma 0.5, lambda 0.5. Row 1: delta = (1 + .5*4 - 2, 0 + .5*6 - 4, 8 - 6) = (1, -1, 2);
    # A = (1 + .25*-.5, -1 + .25*2, 2) = (.875, -.5, 2). Row 2 ends at once: delta = 3 - 1 = 2, and nothing follows.
    rewards = torch.tensor([[1.0, 0.0, 8.0], [3.0, GARBAGE, GARBAGE]])
    values = torch.tensor([[2.0, 4.0, 6.0], [1.0, GARBAGE, GARBAGE]])
    advantages, returns = m.gae(rewards, values, MASK, 0.5, 0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.875, -0.5, 2.0], [2.0, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.875, 3.5, 8.0], [3.0, 0.0, 0.0]]))


def check_gae_with_lambda_1_is_reward_to_go(m: ModuleType) -> None:
    # gamma = lambda = 1: A_t = sum of the rewards from t on, minus V(s_t) (Schulman et al. 2016, eq. 18)
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[3.0, 5.0, 9.0]])
    advantages, returns = m.gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 1.0, 1.0)
    torch.testing.assert_close(advantages, torch.tensor([[4.0, 1.0, -5.0]]))
    torch.testing.assert_close(returns, torch.tensor([[7.0, 6.0, 4.0]]))


def check_policy_loss(m: ModuleType) -> None:
    # ratios 1.5, 1.5, 0.5, clip 0.2: a gain is capped at 1.2, a loss is not capped; padding is nothing
    ratios = torch.tensor([[1.5, 1.5, 0.5], [0.5, 1.0, 1.0]])
    advantages = torch.tensor([[2.0, -2.0, 2.0], [-2.0, GARBAGE, GARBAGE]])
    old = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -GARBAGE, GARBAGE]])
    loss, clipped = m.policy_loss(ratios.log() + old, old, advantages, MASK, 0.2)
    torch.testing.assert_close(loss, torch.tensor([[-2.4, 3.0, -1.0], [1.6, 0.0, 0.0]]))
    assert clipped.tolist() == [[True, False, False], [True, False, False]]
    weighted, _ = m.policy_loss(ratios.log() + old, old, advantages, MASK, 0.2, torch.full((2, 3), 0.5))
    torch.testing.assert_close(weighted, loss / 2)


def check_value_loss(m: ModuleType) -> None:
    # old 0, clip 0.2, return 1: value 0.5 counts as 0.2 -> 0.8^2; value -0.5 is worse unclipped -> 1.5^2; 0.1 as it is
    values = torch.tensor([[0.5, -0.5, 0.1], [1.0, GARBAGE, GARBAGE]])
    old, returns = torch.zeros(2, 3), torch.ones(2, 3)
    loss, clipped = m.value_loss(values, old, returns, MASK, 0.2)
    torch.testing.assert_close(loss, torch.tensor([[0.32, 1.125, 0.405], [0.32, 0.0, 0.0]]))
    assert clipped.tolist() == [[True, False, False], [True, False, False]]


def check_importance_weights(m: ModuleType) -> None:
    sampler = torch.tensor([[-2.0, -2.0, -2.0], [-2.0, GARBAGE, -GARBAGE]])
    logps = sampler + torch.tensor([[0.5, 3.0, 1.0], [0.25, 1.0, 1.0]]).log()
    weights = m.truncated_importance_weights(logps, sampler, MASK, 2.0)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 2.0, 1.0], [0.25, 1.0, 1.0]]))


def check_kl_coefficient(m: ModuleType) -> None:
    assert m.next_kl_coefficient(0.2, 6.6, 6.0) == pytest.approx(0.2 * 1.01)  # e = 0.1
    assert m.next_kl_coefficient(0.2, 60.0, 6.0) == pytest.approx(0.2 * 1.02)  # e is cut off at 0.2
    assert m.next_kl_coefficient(0.2, -1.0, 6.0) == pytest.approx(0.2 * 0.98)


def check_explained_variance(m: ModuleType) -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0], [4.0, GARBAGE, GARBAGE]])  # variance 1.25
    assert m.explained_variance(returns + 7, returns, MASK).item() == pytest.approx(1)
    assert m.explained_variance(torch.zeros(2, 3), returns, MASK).item() == pytest.approx(0)
    # errors 0.5, -0.5, 0.5, -0.5: variance 0.25
    values = returns - torch.tensor([[0.5, -0.5, 0.5], [-0.5, GARBAGE, 0.0]])
    assert m.explained_variance(values, returns, MASK).item() == pytest.approx(1 - 0.25 / 1.25)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_mathematics(check: Callable[[ModuleType], None]) -> None:
    check(mathematics)


PLANTED = {
    "sign of the KL estimate": ("log_ratio = reference_logps - logps", "log_ratio = logps - reference_logps"),
    "sign of the KL penalty": ("(-coefficient * token_kl)", "(coefficient * token_kl)"),
    "score one token early": ("mask.sum(1, keepdim=True) - 1", "(mask.sum(1, keepdim=True) - 2).clamp(min=0)"),
    "score at the last column": ("mask.sum(1, keepdim=True) - 1", "mask.sum(1, keepdim=True) * 0 + 2"),
    "padding in GAE": (
        "rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)",
        "pass",
    ),
    "value after the last token": (
        "next_value = next_advantage = torch.zeros_like(rewards[:, 0])",
        "next_value, next_advantage = values[:, -1], torch.zeros_like(rewards[:, 0])",
    ),
    "padding in means": ("values.masked_fill(~mask, 0).sum() / mask.sum()", "values.mean()"),
    "padding in the policy loss": (
        "return loss.masked_fill(~mask, 0), (clipped > unclipped)",
        "return loss, (clipped > unclipped)",
    ),
    "padding in the value loss": (
        "torch.maximum(unclipped, clipped).masked_fill(~mask, 0)",
        "torch.maximum(unclipped, clipped)",
    ),
    "sign of the advantage": ("-advantages * ratio, -advantages", "advantages * ratio, advantages"),
    "minimum of the losses": ("loss = torch.maximum(unclipped, clipped)", "loss = torch.minimum(unclipped, clipped)"),
    "the ratio upside down": ("(logps - old_logps)", "(old_logps - logps)"),
    "no truncation": (".exp().clamp(max=cap)", ".exp()"),
    "lambda forgotten": ("gamma * lam * next_advantage", "gamma * next_advantage"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_fails_a_check(bug: str) -> None:
    right, wrong = PLANTED[bug]
    source = inspect.getsource(mathematics)
    assert source.count(right) == 1
    planted = ModuleType("planted")
    exec(source.replace(right, wrong), planted.__dict__)
    failed = 0
    for check in CHECKS:
        try:
            check(planted)
        except AssertionError:
            failed += 1
    assert failed


SHAPES = [(None, 1.0, None), (0.5, 1.0, None), (None, 0.25, None), (0.5, 3.0, 2.0)]  # bias, logit scale, soft cap


def output_layer(bias: float | None, scale: float, cap: float | None) -> tuple[head.OutputLayer, Any]:
    """A layer of 17 logits, and the same by torch alone."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(17, 6, generator=generator)
    added = None if bias is None else bias * torch.randn(17, generator=generator)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        scaled = functional.linear(hidden, weight, added) * scale
        return scaled if cap is None else cap * torch.tanh(scaled / cap)

    return head.OutputLayer(weight, added, scale, cap), logits


@pytest.mark.parametrize("shape", SHAPES)
def test_kl_of_two_heads_is_that_of_torch(monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    monkeypatch.setattr(head, "CHUNK_TOKENS", 4)  # 10 tokens in three chunks
    monkeypatch.setattr(head, "VOCABULARY_BLOCK", 5)  # 17 logits in four blocks
    layer, logits = output_layer(*shape)
    hidden, other = 3 * torch.randn(2, 10, 6, generator=torch.Generator().manual_seed(1))
    p, q = (torch.log_softmax(logits(states), -1) for states in (hidden, other))
    expected = functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(head.kl(hidden, other, layer), expected)
    assert head.kl(hidden, hidden, layer).abs().max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_token_logps_and_their_gradient_are_those_of_log_softmax(monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    monkeypatch.setattr(head, "CHUNK_TOKENS", 4)  # 10 tokens in three chunks
    monkeypatch.setattr(head, "VOCABULARY_BLOCK", 5)  # 17 logits in four blocks
    layer, logits = output_layer(*shape)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(10, 6, generator=generator, dtype=torch.float32, requires_grad=True)
    targets, upstream = torch.arange(10), torch.randn(10, generator=generator)
    logps, entropy = head.token_logps(hidden, layer, targets, 0.7)
    (gradient,) = torch.autograd.grad((logps * upstream).sum(), hidden)
    plain = torch.log_softmax(logits(hidden) / 0.7, -1)
    expected = plain[torch.arange(10), targets]
    torch.testing.assert_close(logps, expected)
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum(-1))
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * upstream).sum(), hidden)[0])


def test_in_bf16_log_probabilities_are_those_of_the_rounded_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "VOCABULARY_BLOCK", 5)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 64, generator=generator).bfloat16() for n in (40, 17))
    plain = torch.log_softmax((6 * hidden @ weight.T).float(), -1)
    targets = plain.argmax(-1)  # nearly certain: where a logit rounded otherwise would make p exceed 1
    logps, _ = head.token_logps(6 * hidden, head.OutputLayer(weight), targets)
    assert logps.max() <= 0
    torch.testing.assert_close(logps, plain.amax(-1), rtol=0, atol=1e-4)
