"""The losses against closed forms worked by hand."""

import math

import pytest
import torch

from trueup.training.losses import dpo_loss, kto_loss, mean_one, preference_loss, thumb_loss


def test_dpo_loss_is_ln_2_when_policy_equals_reference() -> None:
    logps = torch.tensor([-3.0, -5.0, -4.0, -6.0])
    assert dpo_loss(logps, logps, torch.ones(2), beta=0.1).item() == pytest.approx(math.log(2))


def test_dpo_loss_of_one_pair_is_minus_log_sigmoid_of_the_scaled_margin() -> None:
    policy, reference = torch.tensor([-2.0, -7.0]), torch.tensor([-3.0, -5.0])
    # chosen ratio +1, rejected ratio -2: margin 3, times beta 0.5
    expected = math.log(1 + math.exp(-1.5))
    assert dpo_loss(policy, reference, torch.ones(1), beta=0.5).item() == pytest.approx(expected)


def test_dpo_weights_scale_each_pair() -> None:
    policy, reference = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4)
    first, second = math.log(1 + math.exp(-1.0)), math.log(2)
    loss = dpo_loss(policy, reference, torch.tensor([1.0, 3.0]), beta=1.0).item()
    assert loss == pytest.approx((first + 3 * second) / 2)


def test_the_loss_of_a_pair_is_bradley_and_terrys() -> None:
    loss = preference_loss(torch.tensor([3.0]), torch.tensor([0.25])).item()
    assert loss == pytest.approx(0.25 * math.log(1 + math.exp(-3.0)))


@pytest.mark.parametrize("q", [1.0, 0.8, 0.55])
def test_a_scaled_margin_is_dpo_on_geometric_averages_of_both_answers(q: float) -> None:
    """Furuta et al. 2024: each side's likelihood is its answers' likelihoods to the powers q and 1 - q."""
    policy, reference = torch.tensor([-2.0, -7.0]), torch.tensor([-3.0, -5.0])
    better = q * policy + (1 - q) * policy.flip(
        0
    )  # log of the geometric averages, the rejected one's in the other place
    averaged = q * reference + (1 - q) * reference.flip(0)
    expected = dpo_loss(better, averaged, torch.ones(1), beta=0.5).item()
    assert dpo_loss(policy, reference, torch.ones(1), 0.5, scale=2 * q - 1).item() == pytest.approx(expected)


@pytest.mark.parametrize("q", [1.0, 0.8, 0.5])
def test_a_soft_label_is_the_cross_entropy_of_torch(q: float) -> None:
    difference = torch.tensor([1.5, -0.3])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(difference, torch.full((2,), q))
    assert preference_loss(difference, torch.ones(2), label=q).item() == pytest.approx(expected.item())


def test_a_soft_label_is_met_where_the_model_says_the_same() -> None:
    difference = torch.tensor([math.log(0.8 / 0.2)], requires_grad=True)
    preference_loss(difference, torch.ones(1), label=0.8).backward()  # type: ignore[no-untyped-call]
    assert difference.grad is not None and difference.grad.item() == pytest.approx(0, abs=1e-6)


def test_the_loss_of_thumbs_is_the_cross_entropy_of_torch() -> None:
    scores, between = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.5, 0.5, -1.0])
    up, weight = torch.tensor([True, True, False]), torch.tensor([1.0, 0.25, 2.0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores - between, up.float(), weight=weight)
    assert thumb_loss(scores, between, up, weight).item() == pytest.approx(expected.item())


def test_kto_loss_of_both_sides_against_its_closed_form() -> None:
    policy, reference = torch.tensor([-2.0, -7.0]), torch.tensor([-3.0, -5.0])
    # log-ratios +1 (up) and -2 (down), KL 0.5, beta 0.5: sigmoid arguments 0.25 and 1.25
    up, down = 1 - 1 / (1 + math.exp(-0.25)), 1 - 1 / (1 + math.exp(-1.25))
    weight, desirable = torch.tensor([1.0, 1.5]), torch.tensor([True, False])
    loss = kto_loss(policy, reference, torch.tensor(0.5), desirable, weight, beta=0.5).item()
    assert loss == pytest.approx((up + 1.5 * down) / 2)


def test_weights_with_mean_one_keep_their_ratio() -> None:
    assert [row["weight"] for row in mean_one([{"weight": 0.2}, {"weight": 0.6}])] == pytest.approx([0.5, 1.5])
