"""Kernels that read weights as they are stored give the product of the dequantized weight."""

from collections.abc import Iterator

import bitsandbytes as bnb
import pytest
import torch

from trueup.cpu import kernels

pytestmark = pytest.mark.skipif(kernels.compiled("nf4") is None, reason="torch does not run on GNU OpenMP here")


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def stored(kind: str, rows: int, columns: int, blocksize: int = 64) -> torch.Tensor:
    dense = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).bfloat16()
    if kind == "bf16":
        return dense
    return bnb.nn.Params4bit(dense.float(), requires_grad=False, quant_type=kind, blocksize=blocksize).to("cpu")


def dequantized(weight: torch.Tensor) -> torch.Tensor:
    state = getattr(weight, "quant_state", None)
    return (weight if state is None else bnb.functional.dequantize_4bit(weight.data, state)).double()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", ["nf4", "bf16"])
@pytest.mark.parametrize("rank", [0, 1, 16])
@pytest.mark.parametrize("num_columns", [8, 16, 24, 32, 56, 64])
@pytest.mark.parametrize("shape", [(4, 64), (12, 128), (76, 192)])
def test_a_product_is_that_of_the_dequantized_weight(
    kind: str, rank: int, num_columns: int, shape: tuple[int, int]
) -> None:
    weight = stored(kind, *shape)
    x, high, low = torch.randn(shape[1], num_columns), torch.randn(shape[0], rank), torch.randn(rank, num_columns)
    expected = dequantized(weight) @ x.double() + high.double() @ low.double()
    found = torch.full((shape[0], num_columns), torch.nan)
    kernels.Product(weight, high if rank else None)(x, low, found)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_double_quantized_weight_is_read_with_its_own_scales() -> None:
    dense = torch.randn(64, 128).mul_(torch.logspace(-2, 2, 64)[:, None])
    weight = bnb.nn.Params4bit(dense, requires_grad=False, quant_type="nf4", compress_statistics=True).to("cpu")
    x, found = torch.randn(128, 8), torch.empty(64, 8)
    kernels.Product(weight)(x, x[:0], found)
    torch.testing.assert_close(found.double(), dequantized(weight) @ x.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "weight",
    [
        stored("fp4", 64, 64),
        stored("nf4", 64, 128, blocksize=128),
        stored("nf4", 64, 96),
        stored("nf4", 6, 64),
        stored("bf16", 64, 64).float(),
        stored("bf16", 64, 128).T,
    ],
    ids=["fp4", "blocks of 128", "a block over two rows", "6 rows", "fp32", "transposed"],
)
def test_a_weight_that_no_kernel_reads_is_refused(weight: torch.Tensor) -> None:
    assert not kernels.fits(weight)
    with pytest.raises(ValueError, match="no kernel"):
        kernels.Product(weight)


@pytest.mark.parametrize(
    ("x", "low", "out"),
    [
        (torch.zeros(64, 12), torch.zeros(2, 12), torch.zeros(8, 12)),
        (torch.zeros(65, 8), torch.zeros(2, 8), torch.zeros(8, 8)),
        (torch.zeros(64, 8), torch.zeros(3, 8), torch.zeros(8, 8)),
        (torch.zeros(64, 8), torch.zeros(0, 8), torch.zeros(8, 8)),
        (torch.zeros(64, 8), torch.zeros(2, 8), torch.zeros(9, 8)),
        (torch.zeros(64, 8).double(), torch.zeros(2, 8), torch.zeros(8, 8)),
        (torch.zeros(8, 64).T, torch.zeros(2, 8), torch.zeros(8, 8)),
    ],
)
def test_what_would_be_read_outside_its_memory_is_refused(
    x: torch.Tensor, low: torch.Tensor, out: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=r"low|x:|y:|columns"):
        kernels.Product(stored("nf4", 8, 64), torch.zeros(8, 2))(x, low, out)
