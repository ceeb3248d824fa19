"""Training by the GPU's own parts gives what transformers and peft give, with fast kernels and in fewer launches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import emulated
import pytest

PLAIN, OURS = "portable", "rows,lora"
SHORT = ["sft.num_train_epochs=1"]
PARTS = {"padding": "left out", "attention": "sdpa, row by row", "lora": "fused in 14 of 14 layers"}
SOFTMAX = {"aten::_softmax", "aten::_safe_softmax"}  # of the attention that is made of plain operators


def backward_kernels(launches: dict[str, int]) -> set[str]:
    """The attention that was trained by."""
    names = {name.removeprefix("aten::_scaled_dot_product_") for name in launches if "scaled_dot_product" in name}
    return {name.removesuffix("_attention_backward") for name in names if name.endswith("_backward")}


@emulated.needs_compiler
def test_a_t4_trains_the_same_without_padding_and_by_a_fast_kernel(tmp_path: Path) -> None:
    """The model has fewer heads of keys than of queries: below 8.0, an attention without a mask has no fast kernel."""
    found = emulated.run(
        "speed.py",
        folder=str(tmp_path),
        capability=(7, 5),
        parts=[PLAIN, OURS],
        stages=["sft", "collect", "dpo"],
        set=SHORT,
    )
    for stage in ("sft", "dpo"):
        plain, ours = found[PLAIN][stage], found[OURS][stage]
        assert ours["metrics"]["training"] == PARTS
        assert ours["metrics"]["train_loss"] == pytest.approx(plain["metrics"]["train_loss"], abs=2e-3)
        assert SOFTMAX & plain["launches"].keys() and not SOFTMAX & ours["launches"].keys()
        assert backward_kernels(ours["launches"]) == {"efficient"}
        of_lora = ("aten::mm", "aten::_to_copy", "aten::add", "aten::clone", "aten::addmm_")
        few, many = (sum(counts["launches"].get(name, 0) for name in of_lora) for counts in (ours, plain))
        assert few < 0.8 * many
    proof = found[OURS]["dpo"]["metrics"]["reference_proof"]
    assert proof["first_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert proof["max_abs_policy_minus_reference"] == 0
    only_once_a_forward(found[OURS]["sft"]["syncs"])


@pytest.mark.slow
@emulated.needs_compiler
def test_an_a100_trains_by_flash_attention(tmp_path: Path) -> None:
    """A padded batch has a mask, which flash attention does not take; rows that follow each other have none."""
    found = emulated.run("speed.py", folder=str(tmp_path), capability=(8, 0), parts=[OURS], stages=["sft"], set=SHORT)
    ours = found[OURS]["sft"]
    assert ours["metrics"]["training"] == PARTS
    assert backward_kernels(ours["launches"]) == {"flash"}


def only_once_a_forward(waits: dict[str, int]) -> None:
    """The host waits for the mask alone, and sends two small tensors."""
    by_kind: dict[str, list[Any]] = {}
    for name, number in waits.items():
        kind, _, line = name.rpartition(" ")
        by_kind.setdefault(kind, []).append((line, number))
    assert len(by_kind["to cpu"]) == 1 and len(by_kind["from cpu"]) == 2 and len(by_kind) == 2
    assert all(line.startswith("gpu/rows.py:") for lines in by_kind.values() for line, _ in lines)
