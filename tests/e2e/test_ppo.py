"""PPO on the tiny 4-bit Llama: it learns, resumes bit for bit, refuses bad input, and planted faults stop it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORDS

from trueup.artifacts import Adapter, read_jsonl
from trueup.errors import ConfigError, DataError, ModelError, ReferenceProofError, StageError
from trueup.models import adapters, base
from trueup.pipeline import Pipeline
from trueup.ppo import heads, loop, rewards, roles, state
from trueup.ppo.batch import collate
from trueup.ppo.rollout import Prompt
from trueup.ppo.settings import Settings

QUICK = {
    "num_steps": 12,
    "rollout_batch_size": 32,
    "max_new_tokens": 6,
    "micro_batch_size": 32,
    "learning_rate": 0.01,
    "value_learning_rate": 0.01,
    "kl_coef": 0.0,
    "missing_eos_penalty": 0.0,
}


def likes_yes(prompts: list[Any], completions: list[str]) -> list[float]:
    return [float("yes" in completion) for completion in completions]


def build(pipeline: Pipeline, **options: Any) -> roles.Roles:
    folder = pipeline.path("sft")
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, folder, trainable=True)
    chosen = {"reward": None, "value_on": "adapter", "temperature": 1.0} | options
    return roles.build(model, base.load_tokenizer(pipeline.run.model.base), policy=folder, **chosen)


def prompts(on_base: roles.Roles) -> list[Prompt]:
    rows = [{"id": w, "messages": [{"role": "user", "content": w}]} for w in WORDS]
    return loop.encode(on_base.tokenizer, rows, 64)[0]


def train(pipeline: Pipeline, out: Path, seed: int = 0, reward: Any = likes_yes, **changes: Any) -> dict[str, Any]:
    settings = Settings(**(QUICK | changes))
    on_base = build(pipeline, value_on=settings.value_on)
    out.mkdir(parents=True, exist_ok=True)
    return loop.train(
        on_base,
        prompts(on_base),
        [rewards.Part("test", 1.0, reward)],
        settings,
        start=pipeline.path("sft"),
        out=out,
        seed=seed,
        name="test",
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_a_simple_reward(pipeline: Pipeline, tmp_path: Path, seed: int) -> None:
    metrics = train(pipeline, tmp_path, seed)
    print({k: round(v, 3) for k, v in metrics.items() if isinstance(v, float)})
    assert metrics["last_reward"] > metrics["first_reward"] + 0.4
