"""A base saved in 4 bits trains and is exported; where 16 bits are asked for, or in another form, it is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_run
from transformers import AutoModelForCausalLM

from trueup.errors import ModelError
from trueup.models import base, causal
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import export


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return make_run(tmp_path_factory.mktemp("run"), four_bit=True)


def test_it_trains_and_its_merged_weights_are_the_policy(run: Pipeline, tmp_path: Path) -> None:
    assert json.loads((Path(run.run.model.base) / "config.json").read_text())["quantization_config"]["load_in_4bit"]
    aligned = Adapter(run.path("sft"))
    assert aligned.record()["metrics"]["linear4bit_layers"] == 14
    context = Context(run=run.run, run_dir=run.folder, out=tmp_path)
    metrics = export.run(export.Config(), context, aligned=aligned)
    assert 0 <= metrics["merge_kl_nats_per_token"] < 0.01
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    probe = load_file(aligned.path / "probe.safetensors")
    recorded = probe.pop("logps")
    with torch.no_grad():
        assert (causal.token_logps(merged, probe) - recorded).abs().max() < 0.1


def test_where_16_bits_are_asked_for_it_is_refused(run: Pipeline) -> None:
    with pytest.raises(ModelError, match="saved in 4 bits by bitsandbytes") as refused:
        base.load_base(run.run.model.base, four_bit=False)
    assert "adapter.kind: qlora" in refused.value.next_step


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "by bitsandbytes in 8 bits"),
        ({"quant_method": "gptq", "bits": 4}, "by gptq"),
    ],
)
def test_another_form_is_refused_by_name(run: Pipeline, tmp_path: Path, saved: dict[str, object], said: str) -> None:
    shutil.copytree(run.run.model.base, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": saved}))
    with pytest.raises(ModelError, match=said):
        base.load_base(str(tmp_path / "model"), four_bit=True)
