"""The adapter for the 16-bit base: against Eckart and Young's theorem, and against the policy itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from trueup.export import fit, texts
from trueup.models import adapters, base
from trueup.run.pipeline import Pipeline


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_a_product_of_low_rank_is_as_near_as_any(rank: int) -> None:
    """The least squared error of rank r is the sum of the other squared singular values (Eckart and Young 1936)."""
    torch.manual_seed(0)
    difference, sizes = torch.randn(20, 12), torch.rand(12) + 0.1
    b, a, missed, whole = fit.low_rank(difference, sizes, rank)
    values = np.linalg.svd((difference * sizes).double().numpy(), compute_uv=False)
    assert (b.shape, a.shape) == ((20, rank), (rank, 12))
    found = ((difference - b @ a) * sizes).square().sum().item()
    assert found == pytest.approx((values[rank:] ** 2).sum(), abs=1e-4)
    assert missed == pytest.approx(found, abs=1e-4) and whole == pytest.approx((values**2).sum(), rel=1e-5)


def test_ranks_that_a_map_does_not_have_are_zeros() -> None:
    difference = torch.randn(4, 6)
    b, a, missed, _ = fit.low_rank(difference, torch.ones(6), 9)
    assert (b.shape, a.shape, missed) == ((4, 9), (9, 6), 0)
    assert torch.allclose(b @ a, difference, atol=1e-5) and not b[:, 4:].any() and not a[4:].any()


def test_the_size_of_an_input_is_its_root_mean_square() -> None:
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(4, 3), "map": torch.nn.Linear(3, 2)})

    def forward(input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
        return model["map"](model["embed"](input_ids))

    model.forward = forward  # type: ignore[method-assign]
    rows = [[0, 1, 2], [3]]
    found = fit.input_sizes(model, ["map"], rows)["map"]
    assert torch.allclose(found, model["embed"].weight.square().mean(0).sqrt())  # every row of it is read once


@pytest.fixture(scope="module")
def policy_logits(pipeline: Pipeline) -> torch.Tensor:
    model = adapters.load_adapter(
        base.load_base(pipeline.run.model.base, four_bit=True), pipeline.path("sft"), trainable=False
    )
    return logits(model.eval(), pipeline)


def logits(model: object, pipeline: Pipeline) -> torch.Tensor:
    (prompt, answer), *_ = texts.recorded(pipeline.path("sft"))
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([prompt + answer])).logits[0].float()  # type: ignore[operator]
    return found


def test_at_full_rank_it_is_the_policy_and_at_low_rank_nearer_than_the_adapter(
    pipeline: Pipeline, policy_logits: torch.Tensor, tmp_path: Path
) -> None:
    """Plain peft, on the base as its files are."""
    distances = []
    for rank in (80, 32, 0):  # the adapter has 16, the model is 64 wide; 0 is the adapter as it is
        folder = tmp_path / str(rank)
        if rank:
            model = adapters.load_adapter(
                base.load_base(pipeline.run.model.base, four_bit=True), pipeline.path("sft"), trainable=False
            )
            left = fit.write(model, pipeline.path("sft"), folder, rank)["left_out"]
            assert (left < 1e-6) == (rank == 80)
        plain = AutoModelForCausalLM.from_pretrained(pipeline.run.model.base, dtype=torch.float32)
        placed = PeftModel.from_pretrained(plain, folder if rank else pipeline.path("sft")).eval()
        distances.append((logits(placed, pipeline) - policy_logits).square().mean().sqrt().item())
    at_full_rank, at_low_rank, as_it_is = distances
    assert at_full_rank < 0.2 * as_it_is  # what is left is bf16's rounding
    assert at_low_rank < as_it_is


def test_maps_without_an_adapter_are_corrected_as_well(pipeline: Pipeline, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = get_peft_model(bare, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    fit.write(model, pipeline.path("sft"), tmp_path, 4)
    written = adapters.saved_tensors(tmp_path)
    assert len(written) == 2 * 14  # seven maps a layer, two layers
    assert all(tensor.abs().max() > 0 for tensor in written.values())
