"""Every kind of adapter goes through the stages; AdaLoRA's rank does shrink."""

import json
from pathlib import Path

import pytest
from tiny import WORDS

from trueup.models import adapters
from trueup.run.artifacts import write_jsonl
from trueup.run.data_config import Source
from trueup.run.pipeline import Pipeline
from trueup.stages import STAGES


def of_kind(pipeline: Pipeline, root: Path, kind: str) -> Pipeline:
    """The same run with another adapter, and pairs that are there already."""
    pairs = root / "pairs.jsonl"
    write_jsonl(pairs, [{"prompt": word, "chosen": "yes", "rejected": "no"} for word in WORDS])
    data = pipeline.run.data.model_copy(update={"preferences": (Source(path=pairs),)})
    adapter = pipeline.run.adapter.model_copy(update={"kind": kind})
    return Pipeline(pipeline.run.model_copy(update={"adapter": adapter, "data": data}), STAGES, root)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("kind", ["dora", pytest.param("lora", marks=SLOW), pytest.param("adalora", marks=SLOW)])
def test_a_kind_goes_through_sft_reward_dpo_and_evaluate(pipeline: Pipeline, tmp_path: Path, kind: str) -> None:
    run = of_kind(pipeline, tmp_path, kind)
    for name in ("sft", "collect", "reward", "dpo", "evaluate"):
        run.execute(name)
    before, after = (adapters.saved_tensors(run.path(name)) for name in ("sft", "dpo"))
    assert before.keys() == after.keys() and any((before[key] != after[key]).any() for key in before)
    proven = json.loads((run.path("dpo") / "record.json").read_text())["metrics"]["reference_proof"]
    assert proven["max_abs_logp_drift"] < 0.02  # what is saved is what was trained
    assert proven["first_loss"] == pytest.approx(0.693147, abs=1e-3)


def test_adalora_shrinks_its_rank_to_the_budget(pipeline: Pipeline, tmp_path: Path) -> None:
    run = of_kind(pipeline, tmp_path, "adalora")
    run.execute("sft")
    config = json.loads((run.path("sft") / "adapter_config.json").read_text())
    ranks = config["rank_pattern"].values()
    assert config["peft_type"] == "LORA" and len(ranks) == 14
    assert sum(ranks) == 14 * 8  # half of r = 16 a map on average (target_r)
    assert len(set(ranks)) > 1  # and not the same everywhere
