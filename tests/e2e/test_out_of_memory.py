"""A stage that runs out of memory says what fits instead, and goes on with it from its last checkpoint."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from test_resume import copy_of
from transformers import TrainerCallback
from transformers import trainer as transformers_trainer

from trueup.cli.main import main
from trueup.models.adapters import saved_tensors
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline

SETTINGS = ("dpo.num_train_epochs=1", "dpo.save_steps=2", "dpo.gradient_accumulation_steps=2", "dpo.max_length=64")
AGAIN = re.compile(r"next: trueup (dpo .+), which goes on where it was")


NUM_PAIRS = 40  # five steps


class OutOfMemory(TrainerCallback):  # type: ignore[misc]
    """The allocator of a GPU, at the fourth step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def dpo(run_file: Path, *words: str) -> Any:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return CliRunner().invoke(main, ["dpo", str(run_file), *sets, *words], catch_exceptions=False)


def test_it_goes_on_with_what_fits_and_ends_where_it_would_have_ended(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (copy_of(pipeline, tmp_path / name, NUM_PAIRS) for name in ("whole", "stopped"))
    assert dpo(whole).exit_code == 0
    with monkeypatch.context() as small:
        callbacks = [*transformers_trainer.DEFAULT_CALLBACKS, OutOfMemory]
        small.setattr(transformers_trainer, "DEFAULT_CALLBACKS", callbacks)
        ended = dpo(stopped)
    assert ended.exit_code == 2
    assert "out of memory on this CPU" in ended.output or "out of memory on " in ended.output
    found = AGAIN.search(ended.output)
    assert found, ended.output
    typed = shlex.split(found.group(1))
    assert "dpo.per_device_train_batch_size=2" in typed  # half of the default, and twice the accumulation
    assert "dpo.gradient_accumulation_steps=4" in typed
    again = CliRunner().invoke(main, typed, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    folders = [file.parent / "runs" / "tiny" / "round-1" / "dpo" for file in (whole, stopped)]
    assert Adapter(folders[1]).record()["metrics"]["resumed_from_step"] == 2
    start, first, second = (saved_tensors(folder) for folder in (pipeline.path("sft"), *folders))
    moved = max((first[key] - start[key]).abs().max().item() for key in first)
    apart = max((first[key] - second[key]).abs().max().item() for key in first)
    assert apart < 0.05 * moved, (apart, moved)  # sums in another order, from the third step on


def test_other_settings_still_begin_anew(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_file = copy_of(pipeline, tmp_path / "run", NUM_PAIRS)
    with monkeypatch.context() as small:
        callbacks = [*transformers_trainer.DEFAULT_CALLBACKS, OutOfMemory]
        small.setattr(transformers_trainer, "DEFAULT_CALLBACKS", callbacks)
        dpo(run_file)
    fewer = dpo(run_file, "--set", "dpo.per_device_train_batch_size=2")  # rows a step: 4 in place of 8
    assert fewer.exit_code == 2
    assert "dpo.per_device_train_batch_size 4 -> 2 since dpo.partial was begun" in fewer.output
    shorter = dpo(run_file, "--set", "dpo.max_length=32")
    assert shorter.exit_code == 2
    assert "dpo.max_length 64 -> 32 since dpo.partial was begun" in shorter.output
