"""Which engine samples on a GPU: what fits is chosen, what is wrong is noticed, and what ran is said.

The GPU's free memory is what a test says; all else is real, computed on the CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trueup.errors import ModelError
from trueup.gpu import llama, maps
from trueup.models import adapters, base
from trueup.run.pipeline import Pipeline
from trueup.sampling import engines
from trueup.sampling.types import Sampling

PROMPTS = [[5, 6, 7], [5, 6, 7], [40, 41], [60, 61, 62, 63]]
GIB = 2**30


@pytest.fixture(scope="module")
def policy(sharp: Pipeline) -> tuple[Any, Any]:
    bare = base.load_base(sharp.run.model.base, four_bit=True)
    tokenizer = base.load_tokenizer(sharp.run.model.base)
    return adapters.load_adapter(bare, sharp.path("sft"), trainable=False).eval(), tokenizer


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    free = {"bytes": 15 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free["bytes"], 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    engines._say.cache_clear()
    return free


def on_gpu(policy: tuple[Any, Any], heard: list[int] | None = None, **changes: Any) -> engines.OnGpu:
    asked = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0, "batch_size": 2, "seed": 0} | changes
    return engines.OnGpu(*policy, Sampling(**asked), (heard if heard is not None else []).append)


@pytest.mark.parametrize(
    ("free", "weights"), [(15 * GIB, "a merged copy in bfloat16"), (GIB, "the stored weights, LoRA in bfloat16")]
)
def test_a_copy_is_made_where_it_fits(policy: tuple[Any, Any], room: dict[str, int], free: int, weights: str) -> None:
    room["bytes"] = free
    heard: list[int] = []
    run = on_gpu(policy, heard)
    done = run(PROMPTS, 3) + run(PROMPTS, 3)
    assert done[:4] == done[4:]
    assert weights in run.ran and "without CUDA graphs: the step cannot be captured (no GPU)" in run.ran
    assert sum(heard) == 8


def test_an_adapter_that_is_not_used_is_noticed_and_generate_takes_over(
    policy: tuple[Any, Any], room: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(maps.Lora, "of", staticmethod(lambda module: None))
    heard: list[int] = []
    run = on_gpu(policy, heard, temperature=0.0)
    done = run(PROMPTS, 3)
    assert done == engines.ByGenerate(*policy, run.sampling, lambda done: None, why="")(PROMPTS, 3)
    assert sum(heard) == len(PROMPTS)  # what was thrown away does not count
    assert run.ran.startswith("generate of transformers: its log-probabilities and the trainer's differ by ")
    assert capsys.readouterr().err == f"sampling with generate of transformers, which is slower: {run.ran[26:]}\n"


def test_a_kernel_that_fails_is_said_and_generate_takes_over(
    policy: tuple[Any, Any], room: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(torch.nn.functional, "rms_norm", fails)
    run = on_gpu(policy)
    assert len(run(PROMPTS, 3)) == len(PROMPTS)
    assert run.ran.endswith("our decoder on this GPU failed (no kernel image is available)")


def test_memory_that_runs_out_with_a_copy_is_tried_without_one(
    policy: tuple[Any, Any], room: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(maps.Merged, "__call__", out_of_memory)
    run = on_gpu(policy)
    assert len(run(PROMPTS, 3)) == len(PROMPTS)
    assert "the stored weights" in run.ran


def test_merged_is_never_something_else(
    policy: tuple[Any, Any], room: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = on_gpu(policy, engine="merged")
    run(PROMPTS, 3)
    assert "a merged copy" in run.ran
    room["bytes"] = 2**20
    with pytest.raises(ModelError, match=r"engine: merged: .*no room on the GPU for a copy of 0\.0 GB"):
        on_gpu(policy, engine="merged")(PROMPTS, 3)
    room["bytes"] = 15 * GIB
    monkeypatch.setattr(maps.Lora, "of", staticmethod(lambda module: None))
    with pytest.raises(ModelError, match=r"differ by \d+\.\d+ nats per token"):
        on_gpu(policy, engine="merged")(PROMPTS, 3)


def test_a_model_that_the_decoder_does_not_know_is_sampled_by_generate_with_the_reason(
    policy: tuple[Any, Any], room: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "KNOWN", ("gemma",))
    run = on_gpu(policy)
    assert run.ran == "generate of transformers: our decoder on a GPU does not know the architecture llama"


def test_the_variable_turns_the_decoder_and_the_graphs_off(
    policy: tuple[Any, Any], room: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_GPU", "decoder")
    run = on_gpu(policy)
    run(PROMPTS, 3)
    assert run.ran.endswith("without CUDA graphs: TRUEUP_GPU leaves them out")
    monkeypatch.setenv("TRUEUP_GPU", "portable")
    assert on_gpu(policy).ran == "generate of transformers: TRUEUP_GPU leaves our decoder out"
