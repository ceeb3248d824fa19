"""vLLM on a real GPU: what it samples is what the trainer scores."""

import pytest
import torch
from tiny_ppo import QUICK, build, likes_gear, move, prompts

from trueup.online import rewards
from trueup.online.ppo import rollout
from trueup.online.settings import Settings
from trueup.run import environments
from trueup.run.pipeline import Pipeline
from trueup.sampling import vllm_server

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or not environments.is_made(vllm_server.NAME),
        reason="needs a GPU and `trueup vllm install`",
    ),
]


def test_the_adapter_is_loaded_anew_for_each_rollout(sharp: Pipeline) -> None:
    on_base = build(sharp)
    part = [rewards.Part("test", 1.0, likes_gear)]
    settings = Settings(**QUICK | {"engine": "vllm"})
    for _ in range(3):  # a stale adapter would be some nats away, and collect would refuse it
        found = rollout.collect(on_base, prompts(on_base), part, settings, 0.0, 0)
        assert found.mismatch[found.mask].mean() < 0.1
        assert all(on_base.tokenizer.eos_token_id not in ids[:-1] for ids in found.completions)
        move(on_base)
