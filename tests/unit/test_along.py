"""Which checkpoints an evaluation takes: whole ones, evenly spaced, before the last step; and who has too few."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from reported import opened
from safetensors.torch import save_file

from trueup.cli.main import main
from trueup.errors import ConfigError, StageError
from trueup.planning import loads
from trueup.planning.lengths import Lengths
from trueup.run.artifacts import Adapter, write_json
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import along, checkpoints


def trained(folder: Path, *steps: int, num_steps: int = 50) -> Path:
    """An adapter whose checkpoints hold their step; the last is the adapter itself."""
    for step in steps:
        checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        save_file({"w": torch.tensor([float(step)])}, checkpoint / "adapter_model.safetensors")
        checkpoints.seal(checkpoint)
    folder.mkdir(exist_ok=True)
    save_file({"w": torch.tensor([float(num_steps)])}, folder / "adapter_model.safetensors")
    write_json(folder / "record.json", {"metrics": {"num_steps": num_steps}, "config": {"save_steps": 5}})
    return folder


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, []), (1, [25]), (4, [10, 20, 30, 40]), (9, list(range(5, 50, 5))), (3, [10, 25, 35])],
)
def test_they_are_evenly_spaced_between_sft_and_the_aligned_model(
    tmp_path: Path, number: int, expected: list[int]
) -> None:
    found = along.chosen(trained(tmp_path / "dpo", *range(5, 51, 5)), number)
    assert list(found) == [f"step_{step}" for step in expected]
    assert [path.name for path in found.values()] == [f"checkpoint-{step}" for step in expected]


def test_the_last_checkpoint_counts_where_training_went_on_behind_it(tmp_path: Path) -> None:
    """As of PPO, which stops at a KL between two checkpoints."""
    assert list(along.chosen(trained(tmp_path / "ppo", 10, 20, num_steps=26), 2)) == ["step_10", "step_20"]


def test_too_few_are_refused_with_what_there_is_and_what_to_type(tmp_path: Path) -> None:
    dpo = trained(tmp_path / "dpo@v", 20, 30, 40, 45, 50)
    (dpo / "checkpoints/checkpoint-20/adapter_model.safetensors").write_bytes(b"torn")
    (dpo / "checkpoints/checkpoint-30/adapter_model.safetensors").unlink()
    (dpo / "checkpoints/checkpoint-30/state.safetensors").write_bytes(b"of PPO")
    checkpoints.seal(dpo / "checkpoints/checkpoint-30")
    with pytest.raises(StageError) as caught:
        along.chosen(dpo, 12)
    said = str(caught.value)
    assert "checkpoints 40, 45 before its last step; checkpoint 20 torn; checkpoint 30 written by an earlier" in said
    assert "trueup evaluate RUN.yaml --set evaluate.checkpoints=2" in said
    assert "trueup dpo RUN.yaml --as along --set dpo.keep_checkpoints=13 --set dpo.save_steps=4" in said
    assert len(along.chosen(dpo, 2)) == 2
    with pytest.raises(StageError, match=r"no folder checkpoints\n  expected: 1 whole"):
        along.chosen(trained(tmp_path / "exported"), 1)


def run_of(folder: Path, *overrides: str) -> Context:
    run = opened(folder, "", *overrides)
    return Context(run=run.run, run_dir=run.folder, out=run.path("evaluate"))


def foresee(context: Context) -> None:
    evaluate = next(stage for stage in STAGES if stage.name == "evaluate")
    assert evaluate.foresee is not None
    evaluate.foresee(context.run.section("evaluate"), context)


def test_more_than_are_kept_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    foresee(run_of(tmp_path, "evaluate.checkpoints=1"))
    foresee(run_of(tmp_path, "evaluate.checkpoints=4", "dpo.keep_checkpoints=5"))
    with pytest.raises(ConfigError, match=r"(?s)4, and dpo.keep_checkpoints 2.*--set dpo.keep_checkpoints=5"):
        foresee(run_of(tmp_path, "evaluate.checkpoints=4"))
    with pytest.raises(ConfigError, match=r"2, and kto.keep_checkpoints 2"):
        foresee(run_of(tmp_path, "method=kto", "evaluate.checkpoints=2", "dpo.keep_checkpoints=5"))
    typed = ["ppo", str(tmp_path / "run.yaml"), "--set", "ppo.keep_checkpoints=1"]
    said = CliRunner().invoke(main, typed)
    assert said.exit_code == 2 and "ppo.keep_checkpoints" in said.output


def test_what_is_trained_already_is_looked_at(tmp_path: Path) -> None:
    context = run_of(tmp_path, "evaluate.checkpoints=3")
    dpo = trained(context.run_dir / "round-1" / "dpo", 10, 20, 30, 50)
    assert Adapter(dpo).is_there()
    foresee(context)  # whatever keep_checkpoints says now
    with pytest.raises(StageError, match="checkpoints 10, 20, 30 before its last step"):
        foresee(run_of(tmp_path, "evaluate.checkpoints=4", "dpo.keep_checkpoints=9"))


@pytest.mark.parametrize(
    ("number", "num_steps", "save_steps", "said"),
    [(3, 36, 10, ""), (3, 30, 10, "(?s)at most 2.*save_steps=9"), (4, 4, 1, "lower evaluate.checkpoints to 3")],
)
def test_fewer_steps_than_checkpoints_are_refused(number: int, num_steps: int, save_steps: int, said: str) -> None:
    if not said:
        along.refuse_too_few_steps("dpo", number, num_steps, save_steps)
        return
    with pytest.raises(ConfigError, match=said):
        along.refuse_too_few_steps("dpo", number, num_steps, save_steps)


def test_the_plan_counts_their_adapters_and_their_answers(tmp_path: Path) -> None:
    evaluate = next(stage for stage in STAGES if stage.name == "evaluate")
    lengths = Lengths(num_held_out=10, prompt_tokens=20, longest_prompt=30)
    (load, work), (more, longer) = (
        loads.plan(evaluate, opened(tmp_path, "", f"evaluate.checkpoints={number}").run, lengths) or pytest.fail()
        for number in (0, 4)
    )
    assert more.num_adapters == load.num_adapters + 4
    assert longer.sampled_tokens == work.sampled_tokens * (2 + 4) / 2  # of SFT and of the aligned model before
    answers = 4 * 10 * 2  # of checkpoints: to ten prompts of 20 tokens, two each, of 48 tokens
    assert longer.read_tokens == work.read_tokens + answers * (20 + 4 * (20 + 48))  # prompts; judge, reward, KL of two
