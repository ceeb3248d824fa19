"""Kernels give what torch gives: products with weights as they are stored, attention of one token, norms."""

from collections.abc import Iterator

import bitsandbytes as bnb
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from trueup.cpu import attention_step as attention
from trueup.cpu import block, kernels, norm, precision, projection

pytestmark = pytest.mark.skipif(
    not kernels.fits(torch.zeros(64, 64, dtype=torch.bfloat16)), reason="torch does not run on GNU OpenMP here"
)


@pytest.fixture(params=[1, 5])
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


@pytest.fixture(params=[False, True], ids=["fp32", "bf16 tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether products are by AMX; skipped where the processor has none."""
    if request.param and not precision.has_tiles():
        pytest.skip("this processor multiplies no tiles")
    monkeypatch.setattr(precision, "has_tiles", lambda: request.param)
    return bool(request.param)


# each size and rank once with a remainder and once without: of 32 rows, 64 inner numbers, 32 columns, 8 or 32 of a rank
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", ["nf4", "bf16"])
@pytest.mark.parametrize(
    ("shape", "rank", "num_columns"),
    [((4, 64), 0, 8), ((12, 128), 1, 24), ((76, 192), 13, 32), ((32, 64), 16, 64), ((160, 192), 20, 48)],
)
def test_a_product_is_that_of_the_dequantized_weight(
    kind: str, rank: int, num_columns: int, shape: tuple[int, int], tiles: bool
) -> None:
    num_columns = kernels.padded(num_columns)
    weight = stored(kind, *shape)
    x, high, low = torch.randn(shape[1], num_columns), torch.randn(shape[0], rank), torch.randn(rank, num_columns)
    operands = [dequantized(weight), x, high, low]
    if tiles and shape[0] % 32 == 0:
        operands = [operand.bfloat16() for operand in operands]
    dense, wide_x, wide_high, wide_low = (operand.double() for operand in operands)
    expected = dense @ wide_x + wide_high @ wide_low
    found = torch.full((shape[0], num_columns), torch.nan)
    kernels.Product(weight, high if rank else None)(x, low, found)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    found = torch.full((num_columns, shape[0]), torch.nan)
    kernels.Product(weight, high if rank else None, transposed=True)(x, low, found)
    assert (found.T - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rank", [3, 16, 32])
def test_the_first_matrices_of_a_lora_are_multiplied_in_tiles_where_there_are_some(rank: int, tiles: bool) -> None:
    matrix, x = torch.randn(rank, 128), torch.randn(128, kernels.padded(5))
    expected = matrix.bfloat16().double() @ x.bfloat16().double() if tiles else matrix.double() @ x.double()
    found = projection.Low(matrix)(x)
    assert found.is_contiguous()
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_double_quantized_weight_is_read_with_its_own_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = torch.randn(64, 128).mul_(torch.logspace(-2, 2, 64)[:, None])
    weight = bnb.nn.Params4bit(dense, requires_grad=False, quant_type="nf4", compress_statistics=True).to("cpu")
    monkeypatch.setattr(precision, "has_tiles", lambda: False)
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
    x: torch.Tensor, low: torch.Tensor, out: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_tiles", lambda: False)
    with pytest.raises(ValueError, match=r"low|x:|y:|columns"):
        kernels.Product(stored("nf4", 8, 64), torch.zeros(8, 2))(x, low, out)


def attended(
    heads: torch.Tensor, angles: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """The same by transformers' rotary embedding and torch's attention, row by row in fp64; fills the cache."""
    num_rows, num_kv, _, head_dim = keys.shape
    q, k, v = torch.split(
        heads.T[:num_rows].double().view(num_rows, -1, head_dim),
        [heads.shape[0] // head_dim - 2 * num_kv] + 2 * [num_kv],
        1,
    )
    cos, sin = angles.double().cos()[:, None], angles.double().sin()[:, None]  # (rows, 1, D)
    q, k = apply_rotary_pos_emb(q[:, :, None], k[:, :, None], cos, sin)
    seen = []
    for row, position in enumerate(positions.tolist()):
        keys[row, :, position], values[row, :, position] = k[row, :, 0], v[row]
        whole = (cache[None, row, :, : position + 1].double() for cache in (keys, values))
        out = torch.nn.functional.scaled_dot_product_attention(q[None, row], *whole, enable_gqa=True)
        seen.append(out.flatten())
    return torch.stack(seen, 1)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize("cached", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_rows", "num_kv", "group", "head_dim", "width"),
    [(1, 1, 1, 16, 1), (5, 2, 4, 128, 17), (32, 3, 3, 64, 90), (9, 4, 1, 32, 33)],
)
def test_attention_of_one_token_is_that_of_torch(
    by_torch: bool,
    cached: torch.dtype,
    num_rows: int,
    num_kv: int,
    group: int,
    head_dim: int,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if by_torch:
        monkeypatch.setattr(attention, "kernel_for", lambda head_dim, cached: None)
    generator = torch.Generator().manual_seed(num_rows)
    positions = torch.randint(0, width, (num_rows,), generator=generator)
    heads = torch.zeros((group + 2) * num_kv * head_dim, kernels.padded(num_rows))
    heads[:, :num_rows] = torch.randn(len(heads), num_rows, generator=generator) * 3
    keys, values = torch.randn(2, num_rows, num_kv, width, head_dim, generator=generator).to(cached)
    angles = torch.randn(num_rows, head_dim // 2, generator=generator).repeat(1, 2)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    rotary = block.Rotary(cos, torch.cat([-sin[..., : head_dim // 2], sin[..., head_dim // 2 :]], -1))
    expected_keys, expected_values = keys.clone(), values.clone()
    expected = attended(heads, angles, expected_keys, expected_values, positions)
    found = attention.Step(rotary, positions, num_kv, cached)(heads, keys, values)
    torch.testing.assert_close(found[:, :num_rows].double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(keys, expected_keys)
    torch.testing.assert_close(values, expected_values)


def test_scores_beyond_the_range_of_exp_do_not_overflow() -> None:
    cos = torch.ones(2, 1, 16)
    rotary = block.Rotary(cos, torch.zeros_like(cos))
    heads = torch.full((48, kernels.padded(2)), 40.0)  # a score of 6400: exp is infinite
    keys, values = torch.zeros(2, 1, 4, 16), torch.zeros(2, 1, 4, 16)
    found = attention.Step(rotary, torch.tensor([3, 0]), 1)(heads, keys, values)
    torch.testing.assert_close(found[:, :2], torch.full((16, 2), 40.0))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize(("hidden", "num_columns"), [(1, 8), (48, 24), (576, 32)])
def test_the_norm_of_a_sum_is_that_of_torch(by_torch: bool, hidden: int, num_columns: int) -> None:
    module = torch.nn.RMSNorm(hidden, eps=1e-5)
    module.weight.data.normal_()
    module.variance_epsilon = module.eps
    x, y = torch.randn(2, hidden, num_columns).mul_(torch.logspace(-4, 2, num_columns))
    total = x + y
    made = norm.Norm(module)
    if by_torch:
        made.kernel = None
    found = made(x, y)
    torch.testing.assert_close(found, module(total.T).T)
    assert torch.equal(x, total)


def test_tensors_that_a_kernel_would_read_wrongly_are_refused() -> None:
    module = torch.nn.RMSNorm(4)
    module.variance_epsilon = 1e-5
    for x, y in (
        (torch.zeros(4, 12), torch.zeros(4, 12)),
        (torch.zeros(5, 8), torch.zeros(5, 8)),
        (torch.zeros(8, 4).T,) * 2,
    ):
        with pytest.raises(ValueError, match="contiguous"):
            norm.Norm(module)(x, y)
    rotary = block.Rotary(torch.ones(8, 1, 16), torch.zeros(8, 1, 16))
    step = attention.Step(rotary, torch.zeros(8, dtype=torch.long), 1)
    with pytest.raises(ValueError, match="contiguous"):
        step(torch.zeros(48, 8), torch.zeros(8, 1, 16, 4).transpose(2, 3), torch.zeros(8, 1, 4, 16))
    far = attention.Step(rotary, torch.arange(8), 1)
    with pytest.raises(ValueError, match="position 7 in a cache of 4"):
        far(torch.zeros(48, 8), torch.zeros(8, 1, 4, 16), torch.zeros(8, 1, 4, 16))
    with pytest.raises(ValueError, match="contiguous"):
        step(torch.zeros(48, 8), torch.zeros(8, 1, 4, 16, dtype=torch.double), torch.zeros(8, 1, 4, 16))
