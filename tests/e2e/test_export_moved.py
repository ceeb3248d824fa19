"""What alignment moved is measured as the ways of loading an export are: on the same answers, without a temperature."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import copy_of, open_run

from trueup.export import texts
from trueup.export.receipt import Receipt
from trueup.models import adapters, base
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import export


@pytest.fixture(scope="module")
def run(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A run of its own, with the adapter of sft/ in dpo/, and in sft/ one that was trained less."""
    made = open_run(copy_of(pipeline, tmp_path_factory.mktemp("moved") / "run"))
    shutil.copytree(made.path("sft"), made.path("dpo"))
    weights = made.path("sft") / "adapter_model.safetensors"
    less = {name: 0.01 * tensor if "lora_B" in name else tensor for name, tensor in load_file(weights).items()}
    save_file(less, weights, metadata={"format": "pt"})
    return made


def exported(run: Pipeline, out: Path) -> Receipt:
    out.mkdir()
    context = Context(run=run.run, run_dir=run.folder, out=out)
    export.run(export.Config(to=("adapter",)), context, aligned=Adapter(run.path("dpo")))
    return Receipt.model_validate_json((out / "receipt.json").read_text())


def test_it_is_the_kl_of_plain_logits_from_the_adapter_before(run: Pipeline, tmp_path: Path) -> None:
    bare = base.load_base(run.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, run.path("dpo"), trainable=False).eval()
    adapters.load_frozen(model, run.path("sft"), "sft")
    tokenizer, seed = base.load_tokenizer(run.run.model), run.run.seed
    asked = texts.answered(texts.held_out(run.run), model, tokenizer, run.path("dpo"), 20, seed)
    kl = []
    for prompt, answer in asked.rows:
        logps = {}
        for name in ("default", "sft"):
            with torch.no_grad(), adapters.using(model, name):
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            logps[name] = logits.float().log_softmax(-1)
        kl.append((logps["default"].exp() * (logps["default"] - logps["sft"])).sum(-1))
    expected = torch.cat(kl).mean().item()
    receipt = exported(run, tmp_path / "export")
    assert expected > 0.01  # the tiny model is nearly uniform
    assert receipt.moved_by_alignment == pytest.approx(expected, rel=0.05)  # bf16 here, fp32 there
    assert f"{receipt.moved_by_alignment:.4f} nats per token" in (tmp_path / "export/adapter/README.md").read_text()


def test_without_the_adapter_before_nothing_is_compared(run: Pipeline, tmp_path: Path) -> None:
    weights = run.path("sft") / "adapter_model.safetensors"
    weights.rename(tmp_path / "away")
    try:
        receipt = exported(run, tmp_path / "export")
    finally:
        (tmp_path / "away").rename(weights)
    assert receipt.moved_by_alignment is None and len(receipt.advice) == 1
    assert any("sft/, is missing" in note for note in receipt.notes)
