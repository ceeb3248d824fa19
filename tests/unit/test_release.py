"""One base is in memory at a time: what a stage, or a step of an export, held is gone before the next is loaded."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judged import judge, judged_pairs

from trueup.models import base
from trueup.run.pipeline import Pipeline

QUICK = ("dpo.num_train_epochs=1", "export.num_prompts=2", "export.gguf_types=q8_0")
PPO = ("ppo.num_steps=1", "ppo.rollout_batch_size=2", "ppo.num_ppo_epochs=1", "ppo.max_new_tokens=4")


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many of the bases loaded before were alive at each loading, without Python's own search for cycles."""
    loaded: list[weakref.ref[Any]] = []
    counts: list[int] = []
    usual = base.load_base

    def load(*args: Any, **kwargs: Any) -> Any:
        counts.append(sum(model() is not None for model in loaded))
        model = usual(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(base, "load_base", load)
    gc.disable()
    yield counts
    gc.enable()
    counts.append(sum(model() is not None for model in loaded))


@pytest.fixture
def judged(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    made = judge(pipeline, tmp_path / "judged", judged_pairs(), [])
    return made.with_run(made.run)


def test_training_stages_and_export_hold_one_base_at_a_time(judged: Pipeline, alive: list[int]) -> None:
    from tiny import open_run

    quick = open_run(judged.folder.parents[1], *QUICK)
    for stage in ("reward", "dpo", "export"):
        quick.execute(stage)
    assert len(alive) > 3
    assert not any(alive), alive
