"""LoRA on a 4-bit linear map in one autograd function: the same values and gradients as autograd in fp32."""

import bitsandbytes as bnb
import pytest
import torch

from trueup.training.fast_cpu import LoraLinear4bit

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="what helps only CPUs")
SCALING = 1.5


def layers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bnb.nn.Linear4bit]:
    """x (2, 3, 128), A (4, 128), B (64, 4) and a 4-bit layer of 128 to 64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    layer = bnb.nn.Linear4bit(128, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(normal(64, 128).bfloat16(), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")
    return normal(2, 3, 128).bfloat16().float(), normal(4, 128), normal(64, 4), layer


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("part", ["y", "x", "a", "b"])
def test_values_and_gradients_equal_those_of_fp32_autograd(part: str) -> None:
    x, a, b, layer = layers()
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    leaves = [t.clone().requires_grad_() for t in (x, a, b)]
    expected = leaves[0] @ weight.T + leaves[0] @ leaves[1].T @ leaves[2].T * SCALING  # eq. 3 of Hu et al. 2021
    target = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    (expected * target).sum().backward()

    ours = [t.clone().requires_grad_() for t in (x.bfloat16(), a, b)]
    y = LoraLinear4bit.apply(*ours, layer.weight, SCALING)
    (y.float() * target).sum().backward()
    pairs = {"y": (y, expected)} | {
        name: (mine.grad, theirs.grad) for name, mine, theirs in zip("xab", ours, leaves, strict=True)
    }
    found, right = pairs[part]
    assert found is not None and right is not None
    assert found.shape == right.shape
    assert found.dtype == (torch.bfloat16 if part in "yx" else torch.float32)
    assert relative(found, right) < 0.01  # bf16 keeps 8 bits: 2^-8 a rounding, averaged over the sums


def test_without_a_gradient_for_x_the_adapters_still_learn() -> None:
    x, a, b, layer = layers()
    a, b = a.requires_grad_(), b.requires_grad_()
    LoraLinear4bit.apply(x.bfloat16(), a, b, layer.weight, SCALING).float().sum().backward()
    assert a.grad is not None and a.grad.abs().max() > 0
    assert b.grad is not None and b.grad.abs().max() > 0
