"""A base or an adapter that cannot be read: one ModelError that names the file and what to do."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_model

from trueup.errors import ModelError
from trueup.models import adapters, base
from trueup.run import weights
from trueup.run.run_file import AdapterConfig
from trueup.training import proof

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and, below it, an adapter of it."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    make_model(folder)
    made = adapters.new_adapter(base.load_base(str(folder), four_bit=True), AdapterConfig(r=2))
    made.save_pretrained(folder / "adapter")
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def half(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-60])


def emptied(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes(b"")


def removed(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def changed(**values: object) -> Damage:
    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return write


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half("tokenizer.json"), "tokenizer.json is torn"),
        (emptied("tokenizer.json"), "tokenizer.json is empty"),
        (removed("tokenizer.json"), "no tokenizer in this folder"),
        (half("tokenizer_config.json"), "tokenizer_config.json is torn"),
        (half("config.json"), "config.json is torn"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "tokenizer.json holds no JSON object"),
    ],
)
def test_a_tokenizer_that_cannot_be_read(copy: Path, damage: Damage, said: str) -> None:
    damage(copy)
    with pytest.raises(ModelError) as caught:
        base.load_tokenizer(str(copy))
    assert f"model.base: {copy}: " in str(caught.value)
    assert said in str(caught.value)
    assert "next: " in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half("model.safetensors"), "bytes are there"),
        (emptied("model.safetensors"), "model.safetensors is empty"),
        (half("config.json"), "config.json is torn"),
        (changed(model_type="llamma"), "does not know its model_type"),
        (changed(model_type="t5"), "architecture t5"),
        (changed(hidden_size=128), "shapes of its tensors"),
        (changed(hidden_size="x"), "another type"),
        (changed(num_hidden_layers=3), "no weights for model.layers.2."),
    ],
)
@pytest.mark.parametrize("num_labels", [None, 1])
def test_a_base_that_cannot_be_read(copy: Path, damage: Damage, said: str, num_labels: int | None) -> None:
    damage(copy)
    with pytest.raises(ModelError) as caught:
        base.load_base(str(copy), four_bit=True, num_labels=num_labels)
    assert said in str(caught.value)
    assert "next: " in str(caught.value)


def test_an_adapter_that_cannot_be_read_names_what_makes_it_again(copy: Path) -> None:
    adapter, bare = copy / "adapter", base.load_base(str(copy), four_bit=True)
    half("adapter_model.safetensors")(adapter)
    loads: tuple[Callable[[], object], ...] = (
        lambda: adapters.saved_tensors(adapter),
        lambda: adapters.load_adapter(bare, adapter, trainable=True),
        lambda: adapters.new_like(bare, adapter, task_type="CAUSAL_LM"),
    )
    for load in loads:
        with pytest.raises(ModelError, match=r"adapter_model\.safetensors is torn: .* bytes are there") as caught:
            load()
        assert "copy or save the adapter again" in str(caught.value)
    (adapter / "record.json").write_text("{}")
    with pytest.raises(ModelError, match=r"next: trueup adapter RUN\.yaml --rebuild"):
        adapters.saved_tensors(adapter)


def test_torn_files_are_seen_before_any_library_is_imported(copy: Path) -> None:
    """`status` and every stage ask `run.base.fault` first."""
    from trueup.run import base as bases

    assert bases.fault(str(copy)) is None
    half("model.safetensors")(copy)
    emptied("tokenizer_config.json")(copy)
    said = str(bases.fault(str(copy)))
    assert "model.safetensors is torn" in said
    assert "tokenizer_config.json is empty" in said


def test_whole_files_are_not_said_to_be_torn(whole: Path, tmp_path: Path) -> None:
    assert weights.torn(whole) == weights.torn(whole / "adapter") == []
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes())
    assert weights.torn(tmp_path) == ["model-2.safetensors is missing, which model.safetensors.index.json names"]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def loaded_from_hub(home: Path, **settings: str) -> tuple[str, float]:
    """What loading owner/name says in a process of its own, and the seconds it took after the imports."""
    code = (
        "import sys, time\nfrom trueup.errors import ModelError\nfrom trueup.models import base\n"
        "import transformers, httpx\nfrom transformers import AutoTokenizer\nbegan = time.monotonic()\n"
        "try:\n    print(len(base.load_tokenizer('owner/name')))\nexcept ModelError as error:\n    print(error)\n"
        "print(time.monotonic() - began)\n"
    )
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"), "")
    environment = os.environ | proxies | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0"} | settings
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    *said, seconds = done.stdout.strip().splitlines()
    assert "Retrying" not in done.stderr
    return "\n".join([*said, done.stderr]), float(seconds)


def test_a_hub_that_does_not_answer_is_one_message_in_seconds(tmp_path: Path, silent: str) -> None:
    for settings in ({"HF_ENDPOINT": silent}, {"HF_HUB_OFFLINE": "1"}):
        said, seconds = loaded_from_hub(tmp_path, **settings)
        assert "model.base: owner/name: it is not on this machine" in said
        assert settings.get("HF_ENDPOINT", "HF_HUB_OFFLINE") in said
        assert "next: " in said
        assert seconds < 15  # the limit is 4


def test_what_is_no_hub_id_is_not_sent_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trueup.models.hub.is_reachable", lambda: pytest.fail("asked the hub"))
    for name in ("my model", "a/b--c", "tiny..", "öl/x"):
        with pytest.raises(ModelError, match="no such folder"):
            base.locate(name)


def test_what_was_downloaded_before_is_used_when_the_hub_does_not_answer(tmp_path: Path, whole: Path) -> None:
    """The layout of the hub's cache: refs name a commit, snapshots hold its files."""
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(whole, cached / "snapshots" / ("0" * 40), ignore=shutil.ignore_patterns("adapter"))
    said, seconds = loaded_from_hub(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert said.splitlines()[0].isdigit()
    assert "owner/name is read from this machine's copy" in said
    assert seconds < 15


def test_a_missing_folder_is_refused_in_the_same_words_by_plan_and_by_a_load(tmp_path: Path) -> None:
    from trueup.planning import shapes

    said = []
    for refuse in (base.locate, base.load_tokenizer, shapes.of_base):
        began = time.monotonic()
        with pytest.raises(ModelError, match="no such folder") as caught:
            refuse(str(tmp_path / "none"))
        said.append(str(caught.value))
        assert time.monotonic() - began < 10
    assert len(set(said)) == 1


def test_a_torn_probe_is_named_with_the_stage_to_build_again(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "record.json").write_text("{}")
    save_file({"logps": torch.zeros(4)}, folder / "probe.safetensors")
    half_of = (folder / "probe.safetensors").read_bytes()[:-9]
    for content in (half_of, b"", None):
        (folder / "probe.safetensors").unlink()
        if content is not None:
            (folder / "probe.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"(?s)probe\.safetensors.*next: trueup sft RUN\.yaml --rebuild"):
            proof.load_probe(folder)
