"""Training with the parts for GPUs gives what transformers and peft give, by the right kernels, in fewer launches."""

from __future__ import annotations

from pathlib import Path

import emulated
import pytest

PLAIN, OURS = "portable", "rows,lora"


@emulated.needs_compiler
@pytest.mark.parametrize(("capability", "kernel"), [((7, 5), "efficient"), ((8, 0), "flash")], ids=["T4", "A100"])
def test_training_is_the_same_by_fast_kernels(tmp_path: Path, capability: tuple[int, int], kernel: str) -> None:
    """The model has fewer heads of keys than of queries: below 8.0, an attention without a mask has no fast kernel."""
    stages = ["sft", "collect", "dpo"]
    found = emulated.run(
        "speed.py", folder=str(tmp_path), capability=capability, parts=[PLAIN, OURS], stages=stages, limit_s=500
    )
    for stage in ("sft", "dpo"):
        plain, ours = found[PLAIN][stage], found[OURS][stage]
        assert ours["metrics"]["training"] == {
            "padding": "left out",
            "attention": "sdpa, row by row",
            "lora": "fused in 14 of 14 layers",
        }
        assert ours["metrics"]["train_loss"] == pytest.approx(plain["metrics"]["train_loss"], abs=2e-3)
        kernels = {name for name in ours["launches"] if "scaled_dot_product" in name}
        assert kernels and all(f"_{kernel}_" in name for name in kernels)
        assert "aten::_softmax" not in ours["launches"] and "aten::_safe_softmax" not in ours["launches"]
        of_lora = ("aten::mm", "aten::_to_copy", "aten::add", "aten::clone", "aten::addmm_")
        launches = [sum(counts["launches"].get(name, 0) for name in of_lora) for counts in (ours, plain)]
        assert launches[0] < 0.8 * launches[1]
    proof = found[OURS]["dpo"]["metrics"]["reference_proof"]
    assert proof["first_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert proof["max_abs_policy_minus_reference"] == 0
    waits = found[OURS]["sft"]["syncs"]
    assert {line.rpartition(":")[0] for line in waits} == {"to cpu gpu/rows.py", "from cpu gpu/rows.py"}
    if capability == (7, 5):
        assert {"aten::_softmax", "aten::_safe_softmax"} & set(found[PLAIN]["dpo"]["launches"])
