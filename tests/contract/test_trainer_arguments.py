"""`trainer:` of a section takes the arguments of its TRL trainer, and nothing that is unknown, or set elsewhere."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from trueup.errors import ConfigError
from trueup.run import trainer_arguments
from trueup.run.run_file import load
from trueup.run.section import TrainerSection
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import common

SECTIONS = {stage.name: stage.config for stage in STAGES}
TRAINED = {name: section for name, section in SECTIONS.items() if issubclass(section, TrainerSection)}


def dataclass_of(section: type[TrainerSection]) -> Any:
    module, _, name = section.arguments_of.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_stage_by_a_trl_trainer_takes_them() -> None:
    assert set(TRAINED) == {"sft", "reward", "dpo", "kto", "grpo"}


@pytest.mark.parametrize("name", TRAINED)
def test_names_read_from_the_sources_are_the_dataclass_s_own(name: str) -> None:
    section = TRAINED[name]
    expected = {field.name for field in dataclasses.fields(dataclass_of(section)) if not field.name.startswith("_")}
    assert trainer_arguments.names(section.arguments_of) == expected


@pytest.mark.parametrize("name", TRAINED)
def test_the_section_s_own_keys_are_arguments_or_named_as_ours(name: str) -> None:
    known = trainer_arguments.names(TRAINED[name].arguments_of)
    ours = {
        "sft": {"held_out_fraction"},
        "reward": {"kind", "members", "disputed_pairs", "thumbs_weight"},
        "dpo": {"disputed_pairs", "rounds"},
        "grpo": SECTIONS["ppo"].model_fields.keys() - known | {"num_reward_samples"},
    }
    assert TRAINED[name].model_fields.keys() - known - {"trainer", "keep_checkpoints"} <= set(ours.get(name, ()))


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(f"name: x\n{text}\n")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "dpo: {trainer: {wieght_decay: 0.1}}",
            "wieght_decay is no argument of trl.DPOConfig; did you mean weight_decay?",
        ),
        (
            "sft: {trainer: {loss_tpe: dft}}",
            "did you mean loss_type? That is not set here: the loss is the negative log-likelihood",
        ),
        ("sft: {trainer: {packing: true}}", "no packing here: trueup makes the tokens"),
        ("kto: {trainer: {seed: 1}}", "no seed here: set `seed` of the run file"),
        ("reward: {trainer: {learning_rate: 1}}", "no learning_rate here: write it without `trainer`"),
        ("grpo: {learning_rate: -1}", "grpo.learning_rate"),
        ("grpo: {per_device_train_batch_size: 0}", "grpo.per_device_train_batch_size"),
        ("grpo: {max_steps: -5}", "grpo.max_steps"),
    ],
)
def test_what_is_wrong_is_refused_when_the_run_file_is_read(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), SECTIONS)
    assert said in str(caught.value) and "line 2" in str(caught.value)


def arguments(folder: Path, text: str, name: str, **more: Any) -> Any:
    run = load(written(folder, text), SECTIONS)
    context = Context(run=run, run_dir=folder / "runs" / "x", out=folder / "runs" / "x" / f"{name}.partial")
    ours = set(TRAINED[name].model_fields) - trainer_arguments.names(TRAINED[name].arguments_of)
    return common.arguments(dataclass_of(TRAINED[name]), context, run.section(name), ours=ours, **more)


def test_arguments_reach_the_trainer(tmp_path: Path) -> None:
    text = (
        "dpo: {beta: 0.3, trainer: {weight_decay: 0.01, lr_scheduler_type: cosine, optim: adafactor, adam_beta1: 1e-1}}"
    )
    found = arguments(tmp_path, text, "dpo")
    assert (found.beta, found.weight_decay, found.adam_beta1) == (0.3, 0.01, 0.1)
    assert (str(found.lr_scheduler_type.value), str(found.optim.value)) == ("cosine", "adafactor")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("dpo", "dpo: {trainer: {weight_decay: much}}", "weight_decay: 'much'"),
        ("kto", "kto: {trainer: {lr_scheduler_type: cosin}}", "cosin"),
        ("grpo", "grpo: {num_generations: 5, per_device_train_batch_size: 8}", "must be divisible by num_generations"),
    ],
)
def test_values_that_trl_refuses_are_refused_before_weights_load(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments(tmp_path, text, name)
    assert said in str(caught.value)
