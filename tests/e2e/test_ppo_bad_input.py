"""What is wrong stops PPO with a sentence that names it, and the last good checkpoint stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_ppo import QUICK, build, likes_gear, prompts, reward_model, train

from trueup.errors import ConfigError, DataError, ModelError, StageError
from trueup.models import base
from trueup.online import prompts as prompt_files
from trueup.online import rewards
from trueup.online.ppo import mathematics, rollout
from trueup.online.settings import Settings
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.sampling.types import Generated
from trueup.training import checkpoints


def test_a_nan_reward_stops_with_the_checkpoint_kept(sharp: Pipeline, tmp_path: Path) -> None:
    calls = 0

    def turns_nan(prompts: list[Any], completions: list[str]) -> list[float]:
        nonlocal calls
        calls += 1
        return [float("nan") if calls == 3 and i == 1 else 0.0 for i in range(len(completions))]

    with pytest.raises(StageError, match=r"reward test: a reward of nan, at the prompt '\w+'"):
        train(sharp, tmp_path, score=turns_nan, save_steps=1)
    assert checkpoints.latest_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-2"


@pytest.mark.parametrize("loss", ["policy_loss", "value_loss"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_good_weights_kept(
    sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, number: float
) -> None:
    real: Callable[..., Any] = getattr(mathematics, loss)
    calls = 0

    def turns_bad(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        found, clipped = real(*args)
        return (found * number if calls == 3 else found), clipped

    monkeypatch.setattr(mathematics, loss, turns_bad)
    with pytest.raises(StageError, match=r"'s loss is (nan|inf|-inf)"):
        train(sharp, tmp_path, save_steps=1, num_ppo_epochs=1, num_steps=3)
    kept = checkpoints.latest_whole(tmp_path / "checkpoints")
    assert kept == tmp_path / "checkpoints" / "checkpoint-2"
    assert all(tensor.isfinite().all() for tensor in load_file(kept / "state.safetensors").values())


def test_a_gradient_that_is_not_finite_stops_before_the_step(
    sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, norm: torch.tensor(float("nan")))
    with pytest.raises(StageError, match="the gradient's norm is nan"):
        train(sharp, tmp_path)


def test_a_reward_function_that_raises_or_miscounts_names_prompt_and_function(tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def breaks(prompts, completions):\n    return [1 / (p[-1]['content'] != 'boot') for p in prompts]\n"
        "def miscounts(prompts, completions):\n    return [1.0]\n"
        "def leaves(prompts, completions):\n    raise SystemExit(7)\n"
    )
    asked = [[{"role": "user", "content": word}] for word in ("tent", "boot")]
    with pytest.raises(StageError, match=r"my_rewards:breaks: it raised ZeroDivisionError.*at the prompt 'boot'"):
        rewards.of_function("my_rewards:breaks", tmp_path)(asked, ["a", "b"])
    with pytest.raises(StageError, match=r"my_rewards:leaves: it raised SystemExit: 7"):
        rewards.of_function("my_rewards:leaves", tmp_path)(asked, ["a", "b"])
    with pytest.raises(StageError, match="my_rewards:miscounts: 1 rewards for 2 completions, at the prompt 'tent'"):
        rewards.of_function("my_rewards:miscounts", tmp_path)(asked, ["a", "b"])
    with pytest.raises(ConfigError, match="my_rewards:absent"):
        rewards.of_function("my_rewards:absent", tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="broken:any: ZeroDivisionError"):
        rewards.of_function("broken:any", tmp_path)


def test_the_loop_names_prompt_and_function(sharp: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text("def fragile(prompts, completions):\n    return [None] * len(prompts)\n")
    with pytest.raises(StageError, match=r"fragile:fragile: it raised TypeError.*at the prompt '\w+'"):
        train(sharp, tmp_path / "out", score=rewards.of_function("fragile:fragile", tmp_path))


def test_prompts_longer_than_the_limit_are_counted_and_named(
    sharp: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = base.load_tokenizer(sharp.run.model.base)
    context = Context(run=sharp.run, run_dir=sharp.folder, out=tmp_path)
    lengths = {len(p.ids) for p in prompt_files.read(context, tokenizer, 1000, max_new_tokens=6)[0]}
    assert len(lengths) > 1
    kept, counts = prompt_files.read(context, tokenizer, max(lengths) - 1, max_new_tokens=6)
    assert len(kept) + counts["num_prompts_too_long"] == 10
    assert counts["num_prompts_too_long"] == len(counts["prompts_too_long"]) > 0
    assert counts["prompts_too_long"][0] in capsys.readouterr().out
    with pytest.raises(DataError, match="all 10 prompts are longer than 3 tokens"):
        prompt_files.read(context, tokenizer, 3, max_new_tokens=6)


def test_a_reward_model_trained_on_another_base_is_refused(sharp: Pipeline, tmp_path: Path) -> None:
    model, _ = reward_model(sharp, tmp_path / "reward")
    config_file = model.path / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(sharp.run.model.base, "another/base"))
    with pytest.raises(ModelError, match=r"a reward model trained on another/base"):
        build(sharp, reward=model.path)


def test_an_engine_that_decodes_another_policy_is_refused(sharp: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rollout.engine

    def off(*args: Any) -> Any:
        run = real(*args)

        def answer(*asked: Any, **more: Any) -> list[Generated]:
            return [Generated(g.ids, [p - 1 for p in g.logps]) for g in run(*asked, **more)]

        answer.ran = "off by one nat"  # type: ignore[attr-defined]
        return answer

    on_base, settings = build(sharp), Settings(**QUICK)
    part = [rewards.Part("test", 1.0, likes_gear)]
    assert rollout.collect(on_base, prompts(on_base), part, settings, 0.0, 0).mismatch.max() < 0.5
    monkeypatch.setattr(rollout, "engine", off)
    with pytest.raises(StageError, match=r"engine auto and the trainer differ by (1.0|0.9)\d nats per token"):
        rollout.collect(on_base, prompts(on_base), part, settings, 0.0, 0)
