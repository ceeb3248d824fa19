"""The seed of a run decides what it makes: equal seeds give equal tensors and texts, other seeds others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORDS
from tiny_ppo import LIKES_GEAR

from trueup.models.adapters import saved_tensors
from trueup.run.artifacts import Adapter, Completions, Feedback, read_jsonl, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import STAGES

FUNCTION = {"reward_model_weight": 0, "reward_functions": {"gear:likes_gear": 1.0}}
SECTIONS: dict[str, dict[str, Any]] = {
    "sft": {"num_train_epochs": 1, "learning_rate": 0.01},
    "sample": {"num_completions": 2, "max_new_tokens": 8},
    "reward": {},
    "dpo": {"num_train_epochs": 1},
    "kto": {},
    "ppo": FUNCTION | {"num_steps": 2, "rollout_batch_size": 8, "max_new_tokens": 6},
    "grpo": FUNCTION
    | {"max_steps": 2, "max_completion_length": 6, "num_generations": 4, "per_device_train_batch_size": 8},
}
Built = Callable[[str, int], Path]


@pytest.fixture
def built(sharp: Pipeline, tmp_path: Path) -> Built:
    """Runs a stage under a seed, in a fresh folder, from generators that stand anywhere."""
    (sharp.folder.parents[1] / "gear.py").write_text(LIKES_GEAR)
    shared = [
        {"prompt_id": str(i), "split": "train", "prompt": [{"role": "user", "content": f"{word} rope"}], "weight": 1.0}
        for i, word in enumerate(WORDS)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", [row | {"chosen": "yes", "rejected": "no"} for row in shared])
    rows = [row | {"completion": "yes", "label": i % 2 == 0, "uid": str(i)} for i, row in enumerate(shared)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    policy, made = Adapter(sharp.path("sft")), iter(range(9))
    inputs = {"policy": policy, "sft": policy, "feedback": Feedback(tmp_path)} | {
        "completions": Completions(sharp.path("sample"))
    }

    def build(name: str, seed: int) -> Path:
        stage = next(stage for stage in STAGES if stage.name == name)
        out = tmp_path / f"out-{next(made)}"
        out.mkdir()
        torch.rand(17 + len(out.name) + seed)  # what ran before in this process
        context = Context(run=sharp.run.model_copy(update={"seed": seed}), run_dir=sharp.folder, out=out)
        given = {name: inputs[name] for name in stage.needs if name in inputs}
        stage.run(stage.config(**SECTIONS[name]), context, **given)
        return out

    return build


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "sample"])
def test_equal_seeds_make_equal_adapters_and_others_do_not(built: Built, name: str) -> None:
    first, second, other = built(name, 0), built(name, 0), built(name, 1)
    one, same, another = map(saved_tensors, (first, second, other))
    assert one.keys() == same.keys() == another.keys()
    assert all(torch.equal(one[key], same[key]) for key in one)
    targets = json.loads((first / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets) and len(targets) == 14
    if name == "kto":  # TRL takes its rows in the order of the file, and nothing is drawn without dropout
        return
    moved = [key for key in one if "lora_A" in key and not torch.equal(one[key], another[key])]
    assert moved


def test_equal_seeds_sample_equal_completions(built: Built) -> None:
    found = [
        [row["completion"] for row in read_jsonl(built("sample", seed) / "completions.jsonl")] for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]
