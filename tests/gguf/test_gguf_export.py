"""The stage `export` writes GGUF files, the LoRA alone and a Modelfile, and its receipt measures each GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from modelfile import parse

from trueup.export import gguf
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import export


@pytest.fixture(scope="module")
def exported(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=out)
    config = export.Config(to=("adapter", "gguf", "ollama"), gguf_types=("f16", "q8_0"), num_prompts=4)
    export.run(config, context, aligned=Adapter(pipeline.path("sft")))
    return out


def test_every_file_is_measured_and_listed(exported: Path) -> None:
    receipt = json.loads((exported / "receipt.json").read_text())
    ways = {way["name"]: way for way in receipt["ways"]}
    assert ways["gguf_f16"]["path"] == "gguf/tiny-F16.gguf"
    assert gguf.reader() in ways["gguf_f16"]["how"]
    assert ways["gguf_f16"]["kl_nats_per_token"] < 2e-3  # f16 for the bf16 that the policy computes in
    assert ways["gguf_q8_0"]["kl_nats_per_token"] < 0.02
    lora = ways["gguf_lora"]
    assert lora["path"] == "gguf/tiny-lora-F32.gguf"
    assert lora["kl_nats_per_token"] is None and "no GGUF file of the base" in lora["why_not"]
    assert "tiny-lora-F32.gguf" in (exported / "gguf" / "README.md").read_text()
    listed = {file["path"] for file in receipt["files"]}
    assert {"gguf/tiny-F16.gguf", "gguf/tiny-Q8_0.gguf", "gguf/tiny-lora-F32.gguf", "ollama/Modelfile"} <= listed
    assert not (exported / "merged").exists()


def test_the_modelfile_names_a_file_of_the_export(exported: Path) -> None:
    found = parse((exported / "ollama" / "Modelfile").read_text())
    assert found[0] == ("FROM", "../gguf/tiny-F16.gguf")  # SFT itself was exported: 8 bits lose more than no alignment
    assert ("PARAMETER stop", "<|im_end|>") in found
    assert ("PARAMETER temperature", "1.0") in found
