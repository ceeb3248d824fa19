"""What is exported loads in another folder, by plain transformers and peft, and answers as the run's policy does."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_run
from transformers import AutoTokenizer

from trueup.models import adapters, base
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.sampling.sample import sample
from trueup.sampling.types import Sampling
from trueup.stages import export

QUESTIONS = ["red tent", "boot rope", "yes no", "green blue"]
# one that knows nothing of trueup; it runs in a folder that holds adapter/, merged/ and model/, the base
STRANGER = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

held = BitsAndBytesConfig.from_dict(json.load(open("adapter/quantization_config.json")))
models = {
    "merged": AutoModelForCausalLM.from_pretrained("merged"),
    "adapter": AutoPeftModelForCausalLM.from_pretrained("adapter", quantization_config=held),
}
said = {}
for name, model in models.items():
    tokenizer = AutoTokenizer.from_pretrained(name)
    said[name] = []
    for question in json.loads(sys.argv[1]):
        asked = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=8, do_sample=False)
        said[name].append(out[0, ids["input_ids"].shape[1]:].tolist())
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A run whose base no other test reads: it is hidden for a while."""
    return make_run(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def exported(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    before = os.umask(0o027)
    try:
        export.run(
            export.Config(),
            Context(run=pipeline.run, run_dir=pipeline.folder, out=out),
            aligned=Adapter(pipeline.path("sft")),
        )
    finally:
        os.umask(before)
    return out


def answers(pipeline: Pipeline, adapter: str | None) -> list[list[int]]:
    """What the policy of the run says, greedily, as token ids; what its base says for None."""
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, pipeline.path("sft"), trainable=False)
    greedy = Sampling(max_new_tokens=8, temperature=0, top_p=1, batch_size=4, seed=0)
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    with adapters.using(model, adapter):
        done = sample(model, base.load_tokenizer(pipeline.run.model), asked, greedy)
    return [answer.ids for answer in done]


def test_a_stranger_gets_the_same_answers_from_both(pipeline: Pipeline, exported: Path, tmp_path: Path) -> None:
    ours, of_base = answers(pipeline, "default"), answers(pipeline, None)
    for name in ("adapter", "merged"):
        shutil.copytree(exported / name, tmp_path / name)
    hidden = Path(pipeline.run.model.base)
    shutil.copytree(hidden, tmp_path / "model")
    hidden.rename(hidden.with_name("away"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, json.dumps(QUESTIONS)],
            cwd=tmp_path,
            env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "TRUEUP_CACHE": "/nowhere"},
            capture_output=True,
            text=True,
        )
    finally:
        hidden.with_name("away").rename(hidden)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"merged": ours, "adapter": ours}
    assert ours != of_base


def test_without_held_out_prompts_the_recorded_texts_are_measured_on(pipeline: Pipeline, tmp_path: Path) -> None:
    run = pipeline.run.model_copy(update={"data": pipeline.run.data.model_copy(update={"held_out": ()})})
    where = Context(run=run, run_dir=pipeline.folder, out=tmp_path)
    metrics = export.run(export.Config(to=("adapter",)), where, aligned=Adapter(pipeline.path("sft")))
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert "data.held_out is not set" in receipt["texts"] and receipt["num_tokens"] > 10
    assert metrics["ways"]["adapter_4bit"] == pytest.approx(0, abs=1e-6)
    assert any(line.startswith("adapter, the adapter on the base in 4 bits: KL 0.0000") for line in metrics["said"])


def test_nothing_in_it_is_ours_or_of_this_machine(pipeline: Pipeline, exported: Path) -> None:
    names = {path.name for path in (exported / "adapter").iterdir()} - {"README.md"}
    assert names == {
        *("adapter_config.json", "adapter_model.safetensors", "quantization_config.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    config = json.loads((exported / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./model"
    machine = (str(Path(pipeline.run.model.base).parent).encode(), str(exported).encode(), str(Path.home()).encode())
    for path in exported.rglob("*"):
        assert not path.is_file() or not any(place in path.read_bytes() for place in machine), path


def test_modes_are_those_of_the_umask(exported: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in exported.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o640}, modes
    assert stat.S_IMODE((exported / "merged").stat().st_mode) == 0o750


def test_the_receipt_holds_what_was_written(pipeline: Pipeline, exported: Path) -> None:
    receipt = json.loads((exported / "receipt.json").read_text())
    ways = {way["name"]: way for way in receipt["ways"]}
    assert set(ways) == {"adapter_4bit", "merged", "adapter_16bit"}
    assert ways["adapter_4bit"]["kl_nats_per_token"] == pytest.approx(0, abs=1e-6)
    assert ways["adapter_4bit"]["agreement"] == 1
    assert ways["merged"]["kl_nats_per_token"] < 0.002
    assert ways["adapter_16bit"]["kl_nats_per_token"] > ways["adapter_4bit"]["kl_nats_per_token"]
    assert receipt["ship"] == "merged"
    listed = {file["path"] for file in receipt["files"]}
    assert {"merged/model.safetensors", "adapter/adapter_model.safetensors"} <= listed
    assert not {"receipt.json", "record.json"} & listed
    tokenizer = AutoTokenizer.from_pretrained(exported / "adapter")
    assert receipt["tokens"]["end_ids"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert receipt["texts"].startswith("6 of 6 held-out prompts")
