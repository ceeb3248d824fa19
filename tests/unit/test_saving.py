"""Hidden states on the CPU and optimizers of 8 bits: the same gradients, bitsandbytes' own steps, clear refusals."""

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from tiny import copy_of, open_run
from tiny_ppo import build

from trueup.errors import ConfigError
from trueup.models import base
from trueup.online.ppo import state
from trueup.online.ppo.batch import collate
from trueup.online.ppo.update import new_optimizer
from trueup.online.settings import Settings
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES
from trueup.training import saving

CPU = torch.device("cpu")


def test_gradients_are_the_same_with_hidden_states_elsewhere(pipeline: Pipeline) -> None:
    roles = build(pipeline)
    roles.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    roles.model.train()
    batch = collate([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], 0)

    def gradients(wanted: bool) -> list[torch.Tensor]:
        for parameter in roles.policy_parameters():
            parameter.grad = None
        with saving.on_cpu(wanted, CPU):
            logps = roles.policy(batch)[0]
        logps.sum().backward()
        return [p.grad.clone() for p in roles.policy_parameters() if p.grad is not None]

    plain, elsewhere = gradients(False), gradients(True)
    assert len(plain) == len(roles.policy_parameters())
    assert any(gradient.abs().sum() > 0 for gradient in plain)
    assert all(torch.equal(a, b) for a, b in zip(plain, elsewhere, strict=True))


def test_eight_bits_are_the_steps_of_bitsandbytes() -> None:
    """On maps large enough to be held in 8 bits: 4,096 elements and more."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 128, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    one = saving.adamw([{"params": [ours], "lr": 0.1}], "adamw_8bit", CPU, eps=1e-5, weight_decay=0.0)
    other = bitsandbytes.optim.AdamW8bit([theirs], lr=0.1, eps=1e-5, weight_decay=0.0)
    for _ in range(3):
        gradient = torch.randn(64, 128, generator=generator)
        for parameter, optimizer in ((ours, one), (theirs, other)):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(ours, theirs) and not torch.equal(ours, start)
    assert one.state[ours]["state1"].dtype == torch.uint8


def test_a_checkpoint_of_eight_bits_goes_on_as_if_it_had_not_stopped(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = Settings(optim="adamw_8bit", learning_rate=0.01)
    roles = build(pipeline, value_on="trunk")
    optimizer = new_optimizer(roles, settings)

    def step(number: int) -> None:
        draw = torch.Generator().manual_seed(number)
        for parameter in [*roles.policy_parameters(), *roles.value_parameters()]:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()

    step(0)
    state.save(tmp_path, 1, roles, optimizer, {})
    step(1)
    through = [parameter.detach().clone() for parameter in roles.policy_parameters()]
    optimizer = new_optimizer(roles, settings)
    assert state.restore(tmp_path, roles, optimizer)[0] == 1
    step(1)
    assert all(torch.equal(a, b) for a, b in zip(through, roles.policy_parameters(), strict=True))


def read(folder: Path, text: str) -> Any:
    path = folder / "run.yaml"
    path.write_text(f"name: x\n{text}")
    return load(path, {stage.name: stage.config for stage in STAGES})


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "kto", "ppo", "grpo"])
def test_offloading_without_checkpointing_is_refused(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ConfigError, match="activation_offloading needs gradient_checkpointing: true"):
        read(tmp_path, f"{stage}: {{activation_offloading: true}}\n")
    both = f"{stage}: {{activation_offloading: true, gradient_checkpointing: true}}\n"
    assert read(tmp_path, both).section(stage).activation_offloading


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("optim=paged_adamw_8bit", "--set sft.optim=adamw_8bit"),
        ("activation_offloading=true", "--set sft.activation_offloading=false"),
    ],
)
def test_what_needs_a_gpu_is_refused_before_a_model_is_loaded(
    pipeline: Pipeline, tmp_path: Path, setting: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "load_base", None)
    changed = open_run(copy_of(pipeline, tmp_path / "run"), f"sft.{setting}", "sft.gradient_checkpointing=true")
    with pytest.raises(ConfigError) as refused:
        changed.execute("sft", rebuild=True)
    assert says in str(refused.value.next_step)


def test_older_run_files_name_the_optimizer_under_trainer(tmp_path: Path) -> None:
    run = read(tmp_path, "sft: {trainer: {optim: adamw_torch}}\n")
    assert run.section("sft").trainer == {"optim": "adamw_torch"}
