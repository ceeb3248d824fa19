"""A run may start from somebody's adapter: its weights are there before step 1, and one that is unfit is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_model

from trueup.errors import ModelError, StageError
from trueup.models import adapters
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline
from trueup.stages import STAGES
from trueup.training import common


def starting(pipeline: Pipeline, root: Path, start: Path, **adapter: Any) -> Pipeline:
    """The same run, begun anew below `root`, its SFT starting from the adapter in `start`."""
    changed = pipeline.run.adapter.model_copy(update={"start": start, **adapter})
    return Pipeline(pipeline.run.model_copy(update={"adapter": changed}), STAGES, root)


@pytest.fixture
def somebodys(pipeline: Pipeline, tmp_path: Path) -> Path:
    folder = tmp_path / "somebodys"
    shutil.copytree(pipeline.path("sft"), folder, ignore=shutil.ignore_patterns("checkpoints"))
    return folder


def test_the_weights_before_step_1_are_those_of_the_file(
    pipeline: Pipeline, tmp_path: Path, somebodys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    usual = common.train

    def note(trainer: Any) -> Any:
        seen.update({k: t.clone() for k, t in adapters.adapter_tensors(trainer.model, "default").items()})
        return usual(trainer)

    monkeypatch.setattr(common, "train", note)
    run = starting(pipeline, tmp_path / "runs", somebodys)
    run.execute("sft")
    saved = load_file(somebodys / "adapter_model.safetensors")
    assert seen.keys() == saved.keys() and len(saved) == 28  # A and B of 14 maps
    assert all(torch.equal(seen[key], saved[key].float()) for key in saved)
    before, after = (Adapter(r.path("sft")).record()["metrics"]["eval_loss"] for r in (pipeline, run))
    assert after < before
    save_file({key: value * 2 for key, value in saved.items()}, somebodys / "adapter_model.safetensors")
    with pytest.raises(StageError, match=r"adapter\.start"):
        run.execute("sft")


def refusal(pipeline: Pipeline, tmp_path: Path, start: Path, **adapter: Any) -> str:
    with pytest.raises(ModelError) as caught:
        starting(pipeline, tmp_path / "runs", start, **adapter).execute("sft")
    return str(caught.value)


def test_another_rank_scaling_or_targets_are_named_at_once(pipeline: Pipeline, tmp_path: Path, somebodys: Path) -> None:
    said = refusal(pipeline, tmp_path, somebodys, r=8, lora_alpha=8, kind="dora", targets="attention")
    assert "r is 16, adapter.r of this run is 8" in said
    assert "lora_alpha is 32, adapter.lora_alpha of this run is 8" in said
    assert "use_dora is False, with adapter.kind dora it is True" in said
    assert "model.layers.0.mlp.down_proj, model.layers.0.mlp.gate_proj" in said
    assert "no weights for" not in said


def test_an_adapter_of_another_base_is_refused(pipeline: Pipeline, tmp_path: Path, somebodys: Path) -> None:
    path = somebodys / "adapter_model.safetensors"
    wide = {
        key: torch.zeros(16, 2 * value.shape[1]) if "q_proj.lora_A" in key else value
        for key, value in load_file(path).items()
    }
    save_file(wide, path)
    said = refusal(pipeline, tmp_path, somebodys)
    assert "model.layers.0.self_attn.q_proj.lora_A is (16, 128), on this base it is (16, 64)" in said
    save_file({key: value for key, value in wide.items() if "layers.1" not in key}, path)
    assert "no weights for model.layers.1.mlp.down_proj" in refusal(pipeline, tmp_path, somebodys)


def test_no_adapter_and_another_kind_are_refused(pipeline: Pipeline, tmp_path: Path, somebodys: Path) -> None:
    assert "no such folder" in refusal(pipeline, tmp_path, tmp_path / "none")
    config = somebodys / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "IA3"}))
    assert "an adapter of kind IA3" in refusal(pipeline, tmp_path, somebodys)
    make_model(tmp_path / "model")
    assert "no adapter_model.safetensors" in refusal(pipeline, tmp_path, tmp_path / "model")
