"""NF4 on the GPU is NF4 on the CPU, bit for bit: an adapter that was trained on one is right on the other."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(64, 64), (128, 192), (96, 320)])
def test_quantizing_and_dequantizing(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    here, there = (
        quantize_4bit(weight.to(device), quant_type="nf4", compress_statistics=False) for device in ("cpu", "cuda")
    )
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[1].absmax, there[1].absmax.cpu())
    assert torch.equal(dequantize_4bit(*here), dequantize_4bit(*there).cpu())


def test_with_double_quantization() -> None:
    """The scales of the scales are rounded: what comes back is the same, too."""
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    here, there = (
        quantize_4bit(weight.to(device), quant_type="nf4", compress_statistics=True) for device in ("cpu", "cuda")
    )
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(dequantize_4bit(*here), dequantize_4bit(*there).cpu())
