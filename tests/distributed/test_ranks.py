"""Ranks find each other, agree, and stop together."""

import json
import shutil
import sys
from pathlib import Path

import pairs
import pytest
from accelerate.commands.config.config_args import load_config_from_file

from trueup.errors import StageError
from trueup.online.ppo import loop
from trueup.online.settings import Settings
from trueup.run import alike
from trueup.run.pipeline import Pipeline


@pytest.fixture(scope="module")
def talked() -> list[tuple[int, str]]:
    return pairs.start([[sys.executable, str(Path(__file__).with_name("talk.py"))]] * 2)


def test_ranks_exchange_values_in_order(talked: list[tuple[int, str]]) -> None:
    for _, said in talked:
        found = json.loads(said.splitlines()[0])
        assert found["count"] == 2
        assert found["gathered"] == ["rank 0", "rank 1"]
        assert found["of_first"] == "made by 0"
        assert found["in_order"] == [[30, 0], [10, 1], [40, 0], [10, 1], [50, 0]]
        assert found["one_alone"] == [8]


def test_means_and_gradients_are_over_all_ranks(talked: list[tuple[int, str]]) -> None:
    for _, said in talked:
        found = json.loads(said.splitlines()[0])
        assert found["mean"] == pytest.approx((1 + 2 + 4) / 3)  # not the mean of 1.5 and 4
        assert found["gradient"] == [[3, 6], [9, 12]]


def test_other_versions_and_files_are_named_with_their_rank(talked: list[tuple[int, str]]) -> None:
    for _, said in talked:
        refused = json.loads(said.splitlines()[0])["refused"]
        assert "versions.trl: 1.15 on rank 0, 1.16 on rank 1" in refused
        assert "seed: 0 on rank 0, 1 on rank 1" in refused
        assert "torch" not in refused


def test_an_error_of_the_first_rank_ends_the_others_without_a_word(talked: list[tuple[int, str]]) -> None:
    (first, said), (second, other) = talked
    assert first == 1 and "dpo: no adapter" in said
    assert second == 2 and len(other.splitlines()) == 1


def test_commands_of_one_process_are_done_once(pipeline: Pipeline) -> None:
    run_file = str(pipeline.folder.parent.parent / "run.yaml")
    (first, said), (second, other) = pairs.start([[sys.executable, "-m", "trueup", "status", run_file]] * 2)
    assert first == 0 and "sft" in said
    assert (second, other) == (0, "")


def test_ranks_with_other_data_are_refused_before_anything_trains(pipeline: Pipeline, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(pipeline.folder.parent.parent, folder, ignore=shutil.ignore_patterns("runs"))
    (folders[1] / "d.jsonl").write_text((folders[0] / "d.jsonl").read_text().replace("glad", "sorry"))
    commands = [[sys.executable, "-m", "trueup", "sft", str(folder / "run.yaml")] for folder in folders]
    commands[1] = ["env", "TRUEUP_GPU=portable", *commands[1], "--set", "model.dtype=float32"]
    (first, said), (second, _) = pairs.start(commands)
    assert first == second == 2
    assert "error: rank 0 of 2: sft, 2 ranks: " in said
    assert "data.demonstrations.sha256: " in said and "on rank 1" in said and "\n  trl" not in said
    assert "model.dtype: auto on rank 0, float32 on rank 1" in said  # neither is in a fingerprint
    assert "TRUEUP_GPU: not set on rank 0, portable on rank 1" in said
    assert not list(folders[0].glob("runs/**/checkpoints"))


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_launchers_that_split_parameters_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alike.refuse_split_parameters()
    monkeypatch.setenv(variable, "true")
    with pytest.raises(StageError, match="computed from whole parameters"):
        alike.refuse_split_parameters()


@pytest.mark.parametrize("name", ["ddp", "ddp-two-machines"])
def test_configurations_for_accelerate_are_read_by_it(name: str) -> None:
    file = Path(__file__).parents[2] / "configs" / "accelerate" / f"{name}.yaml"
    loaded = load_config_from_file(str(file))
    assert loaded.distributed_type == "MULTI_GPU"
    assert loaded.num_processes % loaded.num_machines == 0


def test_a_minibatch_has_a_completion_for_each_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    loop.refuse_idle_ranks(Settings(rollout_batch_size=1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    loop.refuse_idle_ranks(Settings(rollout_batch_size=6, num_mini_batches=3))
    with pytest.raises(StageError, match="a minibatch of 1 of 7 completions, for 2 ranks"):
        loop.refuse_idle_ranks(Settings(rollout_batch_size=7, num_mini_batches=4))
