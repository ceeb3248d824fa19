"""The losses against closed forms worked by hand."""

import math

import pytest
import torch

from trueup.training.losses import bradley_terry_loss, dpo_loss, kto_loss, mean_one


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


def test_bradley_terry_loss_against_its_closed_form() -> None:
    loss = bradley_terry_loss(torch.tensor([2.0]), torch.tensor([-1.0]), torch.tensor([0.25])).item()
    assert loss == pytest.approx(0.25 * math.log(1 + math.exp(-3.0)))


def test_kto_loss_of_both_sides_against_its_closed_form() -> None:
    policy, reference = torch.tensor([-2.0, -7.0]), torch.tensor([-3.0, -5.0])
    # log-ratios +1 (up) and -2 (down), KL 0.5, beta 0.5: sigmoid arguments 0.25 and 1.25
    up, down = 1 - 1 / (1 + math.exp(-0.25)), 1 - 1 / (1 + math.exp(-1.25))
    weight, desirable = torch.tensor([1.0, 1.5]), torch.tensor([True, False])
    loss = kto_loss(policy, reference, torch.tensor(0.5), desirable, weight, beta=0.5).item()
    assert loss == pytest.approx((up + 1.5 * down) / 2)


def test_weights_with_mean_one_keep_their_ratio() -> None:
    assert [row["weight"] for row in mean_one([{"weight": 0.2}, {"weight": 0.6}])] == pytest.approx([0.5, 1.5])
