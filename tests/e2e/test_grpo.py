"""GRPO on the tiny 4-bit Llama: it learns, its reward is an adapter on the same base, and it writes what PPO writes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_ppo import LIKES_GEAR, reward_model

from trueup.errors import ModelError, StageError
from trueup.models import adapters
from trueup.run.artifacts import Adapter, Completions, read_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import grpo
from trueup.training import checkpoints


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_grpo_learns_a_simple_reward(sharp: Pipeline, tmp_path: Path, seed: int) -> None:
    (sharp.folder.parents[1] / "preferences.py").write_text(LIKES_GEAR)
    config = grpo.Config(
        reward_model_weight=0,
        reward_functions={"preferences:likes_gear": 1.0},
        beta=0.001,
        learning_rate=0.01,
        num_generations=16,
        per_device_train_batch_size=64,
        max_steps=36,
        max_completion_length=6,
    )
    run = sharp.run.model_copy(update={"seed": seed})
    context = Context(run=run, run_dir=sharp.folder, out=tmp_path)
    policy, completions = Adapter(sharp.path("sft")), Completions(sharp.path("sample"))
    metrics = grpo.run(config, context, policy=policy, sft=policy, completions=completions)
    assert metrics["last_reward"] > metrics["first_reward"] + 0.2


def test_grpo_rewards_by_an_adapter_on_the_same_base(sharp: Pipeline, tmp_path: Path) -> None:
    model, _ = reward_model(sharp, tmp_path / "reward")
    context = Context(run=sharp.run, run_dir=sharp.folder, out=tmp_path / "out")
    context.out.mkdir()
    policy, completions = Adapter(sharp.path("sft")), Completions(sharp.path("sample"))
    config = grpo.Config(max_steps=3, max_completion_length=6, learning_rate=0.01, save_steps=1)
    metrics = grpo.run(config, context, policy=policy, sft=policy, completions=completions, reward=model)
    assert metrics["linear4bit_layers"] == 14  # one base
    assert metrics["reward_parts"][0]["spread"] > 0
    assert metrics["reference_proof"]["max_abs_logp_effect"] > 0.1
    assert adapters.saved_tensors(context.out).keys() == adapters.saved_tensors(policy.path).keys()


def run(sharp: Pipeline, out: Path, text: str, **changes: Any) -> dict[str, Any]:
    """A few steps under the reward function `text`."""
    name = f"reward_{abs(hash(text))}"
    (sharp.folder.parents[1] / f"{name}.py").write_text(text)
    options = {"max_steps": 4, "max_completion_length": 6, "learning_rate": 0.01, "save_steps": 1, "num_generations": 4}
    config = grpo.Config(
        **options | {"per_device_train_batch_size": 8, "reward_model_weight": 0} | changes,
        reward_functions={f"{name}:likes_gear": 1.0},
    )
    out.mkdir(exist_ok=True)
    policy, completions = Adapter(sharp.path("sft")), Completions(sharp.path("sample"))
    context = Context(run=sharp.run, run_dir=sharp.folder, out=out)
    return grpo.run(config, context, policy=policy, sft=policy, completions=completions)


def test_it_writes_a_row_a_step_and_completions(sharp: Pipeline, tmp_path: Path) -> None:
    metrics = run(sharp, tmp_path, LIKES_GEAR, completions_steps=2)
    rows = list(read_jsonl(tmp_path / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert {"reward", "kl", "entropy", "clip_fraction", "warnings"} <= row.keys()
        assert 0 <= row["eos_rate"] <= 1
        assert 1 <= row["length_tokens"] <= 6
        assert row["tokens_per_s"] == pytest.approx(row["length_tokens"] * 8 / row["step_s"], rel=0.05)
    shown = list(read_jsonl(tmp_path / "completions.jsonl"))
    assert {row["step"] for row in shown} == {1, 3}
    gear: dict[str, Any] = {}
    exec(LIKES_GEAR, gear)
    assert all(row["reward"] == gear["likes_gear"]([row["prompt"]], [row["completion"]])[0] for row in shown)
    assert metrics["kl_nats_per_token"] == metrics["kl_to_reference_nats_per_token"] > 0


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_reward_that_is_not_finite_stops_with_the_checkpoint_kept(
    sharp: Pipeline, tmp_path: Path, number: str
) -> None:
    turns_bad = "calls = 0\ndef likes_gear(prompts, completions):\n    global calls\n    calls += 1\n" + (
        f"    return [float('{number}') if calls == 3 else 0.1 * i for i in range(len(prompts))]\n"
    )
    with pytest.raises(StageError, match=rf"a reward of {number}, at the prompt '\w+ \w+'"):
        run(sharp, tmp_path, turns_bad)
    assert checkpoints.latest_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-2"


def test_a_loss_that_is_not_finite_stops_with_the_checkpoint_kept(
    sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    real, calls = GRPOTrainer.compute_loss, 0

    def turns_nan(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **options) * (float("nan") if calls == 3 else 1.0)

    monkeypatch.setattr(GRPOTrainer, "compute_loss", turns_nan)
    with pytest.raises(StageError, match="the gradient at step 3 is nan"):
        run(sharp, tmp_path, LIKES_GEAR)
    assert checkpoints.latest_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-2"


def test_a_run_cut_off_resumes_and_equals_the_uninterrupted_one(sharp: Pipeline, tmp_path: Path) -> None:
    run(sharp, tmp_path / "whole", LIKES_GEAR)
    dies = f"""{LIKES_GEAR}
calls, likes = 0, likes_gear
def likes_gear(prompts, completions):
    global calls
    calls += 1
    if calls == 3:
        raise KeyboardInterrupt
    return likes(prompts, completions)
"""
    with pytest.raises(KeyboardInterrupt):
        run(sharp, tmp_path / "cut", dies)
    assert run(sharp, tmp_path / "cut", LIKES_GEAR)["resumed_from_step"] == 2
    whole, cut = adapters.saved_tensors(tmp_path / "whole"), adapters.saved_tensors(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert [row["step"] for row in read_jsonl(tmp_path / "cut" / "metrics.jsonl")] == [1, 2, 3, 4]

    again = run(sharp, tmp_path / "cut", LIKES_GEAR)  # as if killed after its last checkpoint: no step is left
    assert (again["resumed_from_step"], again["num_steps"]) == (4, 4)
    cut = adapters.saved_tensors(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert [row["step"] for row in read_jsonl(tmp_path / "cut" / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_reward_model_trained_on_another_base_is_refused(sharp: Pipeline, tmp_path: Path) -> None:
    model, _ = reward_model(sharp, tmp_path / "reward")
    config_file = model.path / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(sharp.run.model.base, "another/base"))
    policy, completions = Adapter(sharp.path("sft")), Completions(sharp.path("sample"))
    context = Context(run=sharp.run, run_dir=sharp.folder, out=tmp_path)
    with pytest.raises(ModelError, match=r"a reward model trained on another/base"):
        grpo.run(grpo.Config(), context, policy=policy, sft=policy, completions=completions, reward=model)
