"""Memory on a real GPU: the peak that was predicted, and what is said when it runs out. No emulated device has any."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from on_gpu import EMULATED
from tiny import WORDS, make_model, open_run
from transformers import LlamaConfig, LlamaForCausalLM

from trueup.cli.main import main
from trueup.planning import devices, fit, lengths, shapes, table
from trueup.run.artifacts import write_jsonl

pytestmark = pytest.mark.skipif(EMULATED, reason="an emulated device has no memory")
SHAPE: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 6}
HEADS: dict[str, Any] = {"num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a base large enough for its tensors to be most of what is held."""
    made = tmp_path_factory.mktemp("memory")
    make_model(made / "model")
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS, pad_token_id=1, eos_token_id=1)).bfloat16()
    model.save_pretrained(made / "model")
    del model
    torch.cuda.empty_cache()
    words = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(300)) for i in range(1, 9)]
    write_jsonl(made / "d.jsonl", [{"prompt": f"{i}", "response": text} for i, text in enumerate(words)])
    (made / "run.yaml").write_text(
        f"name: m\nmodel: {{base: {made / 'model'}}}\ndata: {{demonstrations: d.jsonl}}\n"
        "sft: {max_length: 512, per_device_train_batch_size: 4, num_train_epochs: 1, held_out_fraction: 0.01}\n"
    )
    return made


@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_peak_of_sft_is_what_the_plan_says(folder: Path, checkpointing: bool) -> None:
    run = open_run(folder, f"sft.gradient_checkpointing={str(checkpointing).lower()}", f"name=m{checkpointing:d}")
    run.execute("sft")
    found = run.stages["sft"].makes(run.path("sft")).record()["peak_tensor_bytes"]
    shape = shapes.of_base(run.run.model.base)[0]
    setup = table.setup_of(run, shape, devices.find("auto", timed=False))
    measured, _ = lengths.measure(run.run.data, folder / "model")
    terms = fit.peak_of(run.stages["sft"], run.run, measured, shape, setup)
    assert terms is not None
    assert found == pytest.approx(terms["peak"] - terms["overhead"], rel=0.25)


def test_out_of_memory_ends_in_what_fits(folder: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(1.2e9 / total)
        ended = CliRunner().invoke(main, ["sft", str(folder / "run.yaml"), "--set", "name=little"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert ended.exit_code == 2
    assert f"out of memory on {torch.cuda.get_device_name()}" in ended.output
    assert "--set sft.per_device_train_batch_size=" in ended.output
