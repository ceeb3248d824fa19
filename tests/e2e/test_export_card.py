"""The cards of an export: what the hub's own client reads of them, and what their blocks print when they are run."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import local_hub
import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from tiny import copy_of, open_run

from trueup.cli.main import main
from trueup.export import card
from trueup.export.receipt import Receipt
from trueup.models import adapters, base
from trueup.run.artifacts import records
from trueup.run.pipeline import Pipeline
from trueup.sampling.sample import sample
from trueup.sampling.types import Sampling

SYSTEM = "Be brief.\n```\n</script><b>*You* sell tents.</b> {{ 1 + 1 }}"


@pytest.fixture(scope="module")
def run(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A run whose aligned adapter is DPO's, evaluated at temperature 0 under a system message; export is built."""
    folder = copy_of(pipeline, tmp_path_factory.mktemp("card") / "run")
    model = folder / "model"
    shutil.copytree(pipeline.run.model.base, model, dirs_exist_ok=True)
    (model / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"_model_name_or_path": "A Base"}))  # as GGUF files have it
    settings = (f"model.base={model}", f"data.system={json.dumps(SYSTEM)}", "evaluate.temperature=0")
    made = open_run(folder, *settings)
    shutil.copytree(made.path("sft"), made.path("dpo"))
    made.execute("export", use_stale=True)
    return made


def blocks(text: str, language: str) -> list[str]:
    return [
        t.content
        for t in MarkdownIt("gfm-like", {"linkify": False}).parse(text)
        if t.type == "fence" and t.info == language
    ]


def body(text: str) -> str:
    return text.split("---\n", 2)[2]


def cards(run: Pipeline) -> dict[str, str]:
    """The cards as they are, by folder."""
    return {form: (run.path("export") / form / "README.md").read_text() for form in ("adapter", "merged")}


def test_the_hubs_client_reads_the_front_matter(run: Pipeline) -> None:
    common = {"pipeline_tag": "text-generation", "license": "llama3.2"}
    expected = {
        "adapter": {"library_name": "peft", "tags": ["trueup", "dpo", "lora"]} | common,
        "merged": {"library_name": "transformers", "tags": ["trueup", "dpo"]} | common,
    }
    for form, text in cards(run).items():
        assert ModelCard(text).data.to_dict() == expected[form]  # the base is a folder: no id of the hub to name
        assert "More Information Needed" not in text


def rendered(run: Pipeline, form: str, unsaid: tuple[str, ...] = (), **changes: Any) -> str:
    """The card of a form of the same export, of another run file."""
    values = run.run
    for section, change in changes.items():
        values = values.model_copy(update={section: getattr(values, section).model_copy(update=change)})
    receipt = Receipt.model_validate_json((run.path("export") / "receipt.json").read_text())
    out = run.path("export").with_name("export.copy")
    shutil.copytree(run.path("export"), out)
    try:
        (out / "gguf").mkdir()
        (out / "gguf" / "tiny.q8_0.gguf").write_bytes(b"")
        names = {"merged": "ada/tiny", "adapter": "ada/tiny-adapter", "gguf": "ada/tiny-GGUF"}
        assert card.write(out, receipt, values, records(run.folder, 1, "export"), names) == list(unsaid)
        return (out / form / "README.md").read_text()
    finally:
        shutil.rmtree(out)


def test_a_base_of_the_hub_and_its_relation_are_named(run: Pipeline) -> None:
    (source,) = run.run.data.sources("demonstrations")
    data = {"demonstrations": (source.model_copy(update={"path": Path("hub:ada/words:train")}),)}
    found = {
        form: ModelCard(rendered(run, form, export={"base": "owner/model@v1"}, data=data)).data
        for form in ("adapter", "merged", "gguf")
    }
    assert {form: (data["base_model"], data["base_model_relation"]) for form, data in found.items()} == {
        "adapter": ("owner/model", "adapter"),
        "merged": ("owner/model", "finetune"),
        "gguf": ("ada/tiny", "quantized"),
    }
    assert all(data["datasets"] == ["ada/words"] for data in found.values())
    assert found["gguf"]["library_name"] == "gguf"


def test_an_unknown_license_is_said_and_asked_for(run: Pipeline, tmp_path: Path) -> None:
    readme = Path(run.run.model.base) / "README.md"
    readme.rename(tmp_path / "README.md")
    try:
        text = rendered(run, "adapter", (card.UNLICENSED,))
        assert ModelCard(text).data.get("license") is None
        assert "The license of the base is not known" in text and "`export.license`" in text
        assert ModelCard(rendered(run, "adapter", export={"license": "cc-by-4.0"})).data["license"] == "cc-by-4.0"
        assert card.UNLICENSED not in run.says("export")
    finally:
        (tmp_path / "README.md").rename(readme)


def test_texts_of_the_run_are_no_markup(run: Pipeline) -> None:
    text = body(cards(run)["adapter"])
    assert blocks(text, "") == [SYSTEM + "\n"]
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "</script>" not in html and "<b>" not in html


def test_the_card_says_what_was_measured(run: Pipeline) -> None:
    receipt = Receipt.model_validate_json((run.path("export") / "receipt.json").read_text())
    for text in cards(run).values():
        for way in receipt.ways:
            assert f"{way.kl_nats_per_token:.4f} | {way.agreement:.1%}" in text
        assert "These weights were not evaluated" in text
        assert "Supervised fine-tuning saw 36 demonstrations" in text
        assert "<p>Made with trueup" in MarkdownIt("gfm-like", {"linkify": False}).render(body(text))


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_transformers_block_answers_as_the_policy_does(run: Pipeline, form: str, tmp_path: Path) -> None:
    for folder, source in (
        ("adapter", run.path("export")),
        ("merged", run.path("export")),
        ("model", run.folder.parents[1]),
    ):
        shutil.copytree(source / folder, tmp_path / folder)
    (code,) = blocks(body(cards(run)[form]), "python")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "TRUEUP_CACHE": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model = adapters.load_adapter(base.load_base(run.run.model.base, four_bit=True), run.path("dpo"), trainable=False)
    asked = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "What can you do for me?"}]]
    greedy = Sampling(max_new_tokens=8, temperature=0, top_p=1, batch_size=1, seed=0)
    (answer,) = sample(model, base.load_tokenizer(run.run.model), asked, greedy)
    assert answer.text.strip() and done.stdout.strip() == answer.text.strip()


def test_vllm_is_given_options_that_it_has_or_another_form(run: Pipeline) -> None:
    merged = rendered(run, "merged")
    (command,) = [block for block in blocks(merged, "bash") if block.startswith("vllm")]
    assert shlex.split(command) == ["vllm", "serve", "ada/tiny", "--dtype", "bfloat16"]
    (ask,) = [shlex.split(block) for block in blocks(merged, "bash") if ":8000/v1/chat/completions" in block]
    asked = json.loads(ask[ask.index("-d") + 1])
    assert asked["model"] == "ada/tiny" and asked["messages"][0] == {"role": "system", "content": SYSTEM}
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["max_tokens"]) == (0, 1, 0, 8)
    in_4_bits = rendered(run, "adapter")
    assert not [block for block in blocks(in_4_bits, "bash") if block.startswith("vllm")]
    assert "Serve `ada/tiny` instead" in in_4_bits


def test_private_keys_of_libraries_are_not_written(run: Pipeline) -> None:
    for path in ("merged/config.json", "adapter/quantization_config.json", "adapter/adapter_config.json"):
        assert not [key for key in json.loads((run.path("export") / path).read_text()) if key.startswith("_")], path


def typed(run: Pipeline, *more: str) -> list[str]:
    """The command that exports this run again."""
    settings = [part for override in run.overrides for part in ("--set", override)]
    return ["export", str(run.folder.parents[1] / "run.yaml"), *settings, "--use-stale", *more]


def test_the_command_pushes_each_form_with_a_card_that_names_its_repository(
    run: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in run.path("export").rglob("*") if path.is_file()}
    monkeypatch.setenv("HF_TOKEN", local_hub.TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with local_hub.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.fake.url)
        dry = CliRunner().invoke(main, typed(run, "--push", "ada/tiny", "--push-dry-run"))
        assert dry.exit_code == 0 and "ada/tiny-adapter: 8 files" in dry.output and not hub.repos, dry.output
        done = CliRunner().invoke(main, typed(run, "--push", "ada/tiny"))
        assert done.exit_code == 0 and f"pushed to {hub.fake.url}/ada/tiny" in done.output, done.output
        monkeypatch.delenv("HF_TOKEN")
        refused = CliRunner().invoke(main, typed(run, "--push", "ada/tiny"))
        assert refused.exit_code == 2 and "HF_TOKEN is not set" in refused.output
    assert set(hub.repos) == {"ada/tiny", "ada/tiny-adapter"}
    for name, form in (("ada/tiny", "merged"), ("ada/tiny-adapter", "adapter")):
        files = hub.repos[name].files
        assert files.keys() == {path.name for path in (run.path("export") / form).iterdir()}
        (code,) = blocks(body(files["README.md"].decode()), "python")
        assert repr(name) in code
    assert {path: path.read_bytes() for path in run.path("export").rglob("*") if path.is_file()} == before
    assert local_hub.TOKEN not in dry.output + done.output + refused.output
    assert not run.path("export").with_name("export.push").exists()


def test_ollama_and_llama_cpp_are_given_the_gguf_where_there_is_one(run: Pipeline) -> None:
    pull, ask, chat = (shlex.split(block) for block in blocks(rendered(run, "gguf"), "bash"))
    assert pull == ["ollama", "pull", "hf.co/ada/tiny-GGUF"]
    asked = json.loads(ask[ask.index("-d") + 1])
    assert asked["model"] == "hf.co/ada/tiny-GGUF" and asked["messages"][0] == {"role": "system", "content": SYSTEM}
    assert asked["options"].items() >= {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "num_predict": 8}.items()
    options = dict(zip(chat[1:-3:2], chat[2:-2:2], strict=False))
    assert options.items() >= {"-hf": "ada/tiny-GGUF", "--temp": "0", "--top-p": "1", "--top-k": "0"}.items()
    assert options.items() >= {"--min-p": "0", "--repeat-penalty": "1", "-n": "8"}.items()
    assert chat[-3:] == ["-cnv", "-sys", SYSTEM]
    assert "trueup export RUN.yaml --to gguf" in cards(run)["merged"]
