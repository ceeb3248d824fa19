"""The plan against a model that is really there: its bytes, its adapter, what its forward keeps; and the command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.models import adapters, base
from trueup.planning import devices, memory, shapes, table
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.training import common


@pytest.fixture
def shape(pipeline: Pipeline) -> shapes.Shape:
    return shapes.of_base(pipeline.run.model.base)[0]


@pytest.fixture
def setup(shape: shapes.Shape) -> memory.Setup:
    return memory.Setup(
        four_bit=True, r=16, targets=tuple(shape.linear), compute_bytes=2 if devices.cpu_has_bf16() else 4
    )


def test_bytes_of_the_base_and_of_an_adapter(
    pipeline: Pipeline, shape: shapes.Shape, setup: memory.Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as portable:
        portable.setenv("TRUEUP_CPU", "portable")
        bare = base.load_base(pipeline.run.model.base, four_bit=True)
    usual = replace(setup, packed=False)
    assert memory.weights(shape, usual) == pytest.approx(base.weights_bytes(bare), rel=0.02)  # norms may be fp32
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    assert memory.weights(shape, setup) == pytest.approx(base.weights_bytes(bare), rel=0.02)
    model = adapters.new_adapter(bare, pipeline.run.adapter)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert memory.adapter_parameters(shape, setup) == trained


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_the_packed_forward_keeps(
    pipeline: Pipeline, tmp_path: Path, shape: shapes.Shape, setup: memory.Setup, checkpointing: bool
) -> None:
    model, _ = common.load_policy(Context(run=pipeline.run, run_dir=tmp_path, out=tmp_path), None)
    layers = model.get_base_model().model
    layers.norm = torch.nn.Identity()  # after the blocks, and not counted here
    layers.gradient_checkpointing = checkpointing
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(3, shape.vocabulary, (3, 40), generator=torch.Generator().manual_seed(0))
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = layers(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    load = memory.Load(rows=3, tokens=40, checkpointing=checkpointing)
    predicted = memory.activations(shape, setup, load)
    if checkpointing:  # one layer whole is there only in the backward
        predicted -= memory.layer_activations(shape, setup, load)
    masks = 3 * 40 * 8 + 3 * 40  # of unpacking: places and which are real
    assert sum(kept.values()) == pytest.approx(predicted, abs=8 * masks)
    assert predicted > 100 * masks or checkpointing
    assert hidden.requires_grad


def test_the_command_says_what_is_complete_and_that_it_fits(pipeline: Pipeline) -> None:
    result = CliRunner().invoke(main, ["plan", str(pipeline.folder.parents[1] / "run.yaml"), "--device", "t4"])
    assert result.exit_code == 0, result.output
    assert "fits in 16 GB: yes" in result.output
    sft = next(line for line in result.output.splitlines() if " sft " in line)
    assert "complete" in sft


@pytest.mark.parametrize(("device", "code"), [("auto", 0), ("t4", 2)])
def test_a_probe_is_of_this_machine(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, device: str, code: int
) -> None:
    probed: list[str] = []

    def probe(run: Pipeline, made: table.Plan, chosen: devices.Device, say: Any) -> table.Plan:
        probed.append(chosen.name)
        return made

    monkeypatch.setattr(table, "probe", probe)
    typed = ["plan", str(pipeline.folder.parents[1] / "run.yaml"), "--probe", "--device", device]
    result = CliRunner().invoke(main, typed)
    assert (result.exit_code, len(probed)) == (code, int(code == 0)), result.output


def test_the_command_names_the_change_that_makes_it_fit(tmp_path: Path) -> None:
    config = '{"num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, '
    (tmp_path / "config.json").write_text(config + '"num_key_value_heads": 8, "vocab_size": 32000}')
    (tmp_path / "run.yaml").write_text(f"name: x\nmodel: {{base: {tmp_path}}}\n")
    result = CliRunner().invoke(main, ["plan", str(tmp_path / "run.yaml"), "--device", "t4"])
    assert result.exit_code == 0, result.output
    assert "fits in 16 GB: no" in result.output
    assert (
        "sft would fit with --set sft.per_device_train_batch_size=2 --set sft.gradient_accumulation_steps=4"
        in result.output
    )
    assert "export would fit" not in result.output  # the merged maps are held by the host
