"""The decoder on the GPU: it samples what the trainer scores, its steps are replayed, and a copy changes little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from on_gpu import EMULATED

from trueup.models import adapters, base
from trueup.run.pipeline import Pipeline
from trueup.sampling import agreement
from trueup.sampling.engines import OnGpu, engine
from trueup.sampling.types import Generated, Sampling

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 8, 9], [40, 41], [60, 61, 62, 63], [60, 61, 62, 63], [70, 71, 72]]
ASKED: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 1.0, "batch_size": 4, "seed": 0}


@pytest.fixture(scope="module")
def policy(chain: Pipeline, record: Callable[[str], Any]) -> tuple[Any, Any]:
    record("sft")
    bare = base.load_base(chain.run.model.base, four_bit=True)
    tokenizer = base.load_tokenizer(chain.run.model.base)
    return adapters.load_adapter(bare, chain.path("sft"), trainable=False).eval(), tokenizer


def sampled(policy: tuple[Any, Any], **changes: Any) -> tuple[list[Generated], str]:
    run = engine(*policy, Sampling(**ASKED | changes))
    done = run([list(prompt) for prompt in PROMPTS], 3)
    return done, run.ran


@pytest.mark.parametrize("name", ["auto", "merged"])
def test_the_decoder_runs_and_is_what_the_trainer_scores(policy: tuple[Any, Any], name: str) -> None:
    done, ran = sampled(policy, engine=name)
    assert ran.startswith("our decoder on a GPU, a merged copy")
    assert ran.endswith("CUDA graphs" if not EMULATED else "dummy base class CUDAGraph)")
    assert agreement.apart(*policy, PROMPTS, done, Sampling(**ASKED)) < 0.05  # nats per token


def test_without_a_copy_it_is_the_same_policy(policy: tuple[Any, Any]) -> None:
    run = OnGpu(*policy, Sampling(**ASKED), lambda done: None)
    assert run.ours is not None
    run.ours.asked = False
    done = run([list(prompt) for prompt in PROMPTS], 3)
    assert "the stored weights, LoRA in" in run.ran
    assert agreement.apart(*policy, PROMPTS, done, Sampling(**ASKED)) < 0.05


def test_a_replayed_step_gives_what_its_kernels_give(policy: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    replayed, _ = sampled(policy)
    monkeypatch.setenv("TRUEUP_GPU", "decoder")
    one_by_one, ran = sampled(policy)
    assert ran.endswith("without CUDA graphs: TRUEUP_GPU leaves them out")
    assert [done.ids for done in replayed] == [done.ids for done in one_by_one]


def test_greedy_answers_begin_as_those_of_generate(policy: tuple[Any, Any]) -> None:
    ours, _ = sampled(policy, temperature=0.0)
    theirs, _ = sampled(policy, temperature=0.0, engine="generate")
    for mine, other in zip(ours, theirs, strict=True):
        same = next((i for i, (a, b) in enumerate(zip(mine.ids, other.ids, strict=False)) if a != b), None)
        most = min(len(mine.ids), len(other.ids)) if same is None else same
        assert mine.logps[:most] == pytest.approx(other.logps[:most], abs=0.05)
        if same is not None:  # rounding decided: both tokens were nearly as likely
            assert mine.logps[same] == pytest.approx(other.logps[same], abs=0.05)
