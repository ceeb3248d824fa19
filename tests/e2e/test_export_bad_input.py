"""An export that cannot be is refused in one message, before anything is loaded or written."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import copy_of, open_run

from trueup.cli.main import main
from trueup.errors import ConfigError, ModelError
from trueup.export import room
from trueup.run.pipeline import Pipeline
from trueup.stages import export

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def folder(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of its own whose sft counts as aligned."""
    folder = copy_of(pipeline, tmp_path_factory.mktemp("export") / "run")
    (folder / "runs" / "tiny" / "round-1").mkdir(exist_ok=True)
    return folder


def refused(folder: Path, *typed: str) -> str:
    result = CliRunner().invoke(main, [typed[0], str(folder / "run.yaml"), *typed[1:]], env={"COLUMNS": "200"})
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.output


@pytest.mark.parametrize("command", ["preflight", "run"])
def test_a_disk_that_is_too_small_is_said_before_anything(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**5))
    monkeypatch.setattr("trueup.models.base.load_base", lambda *_, **__: pytest.fail("loaded weights"))
    said = refused(folder, command)
    assert "0.0 GB free on the disk" in said and "--to adapter" in said


def test_the_bytes_are_those_of_the_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An 8B model: 16 GB in bf16, 8.5 in q8_0 (34 bytes for 32 weights), and 5 % more."""
    needed = 1.05 * (16e9 + 8.5e9)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Usage(0, 0, needed + 1))
    room.refuse_full_disk(tmp_path / "a" / "b", 8 * 10**9, ["bf16", "q8_0"], 0)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Usage(0, 0, needed - 1))
    with pytest.raises(Exception, match=r"25\.7 GB"):
        room.refuse_full_disk(tmp_path / "a" / "b", 8 * 10**9, ["bf16", "q8_0"], 0)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("export.to=onnx", "adapter"),
        ("export.to=[]", "export.to"),
        ("export={merged: false, to: [merged]}", "leave one of the two out"),
        ("export.base=model", "export.base"),
        ("export.gguf_types=q5", "q4_0"),
        ("export.base=foo", "found 'foo'; expected: owner/name or owner/name@revision"),
        ("export.license=My License", "found 'My License'; expected: a license's identifier on the hub"),
        ("export={merged: false, to: [merged]}", "export: merged: false means to: adapter"),
        ("export={adapter_for: 16bit}", ""),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(folder: Path, option: str, said: str) -> None:
    if said:
        with pytest.raises(ConfigError, match="export") as found:
            open_run(folder, option)
        assert said in str(found.value)
    else:
        assert "16-bit files" in refused(folder, "preflight", "--set", option, "--set", "adapter.kind=lora")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--push-dry-run",), "push_dry_run (--push-dry-run) says how to push, and nothing is pushed"),
        (("--push-public",), "push_public (--push-public) says how to push, and nothing is pushed"),
        (("--push", ""), "--push '': export.push: found ''; expected: owner/name; is the variable set"),
        (("--push", "null"), "--push null: export.push: found 'null'; expected: owner/name"),
        (("--to", ""), "--to '': export.to: found ''; expected: a list, each one of adapter, merged, gguf, ollama"),
        (("--to", "adaptor"), "--to adaptor: export.to: found 'adaptor'; expected: a list, each one of adapter"),
        (("--to", "adaptor", "--push", "x"), "--push x: export.push: found 'x'; expected: owner/name"),
        (("--to", "ollama", "--push", "ada/-x", "--push-dry-run"), "cannot start or end with '-'"),
        (("--to", "ollama", "--push", "ada/x"), "HF_TOKEN is not set"),
    ],
)
def test_no_option_of_the_command_is_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], said: str
) -> None:
    """Each is refused before the export begins, in words that name it as it was typed."""
    monkeypatch.setattr("trueup.models.base.load_base", lambda *_, **__: pytest.fail("loaded weights"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if not (folder / "runs" / "tiny" / "round-1" / "dpo").exists():
        shutil.copytree(folder / "runs" / "tiny" / "sft", folder / "runs" / "tiny" / "round-1" / "dpo")
    found = refused(folder, "export", "--use-stale", *typed)
    assert said in found and "--set" not in found.replace("trueup export", "").split("next:")[0]


def test_the_order_of_the_forms_and_of_the_types_is_not_part_of_an_export(folder: Path) -> None:
    def config(*typed: str) -> dict[str, object]:
        return open_run(folder, *typed).run.section("export").model_dump()

    assert config("export.to=merged,adapter,merged") == config()
    types = config("export.gguf_types=q4_0,f16,q8_0")["gguf_types"]
    assert types == config()["gguf_types"] == ("f16", "q8_0", "q4_0")


def test_an_adapter_in_gguf_that_is_not_made_is_said(folder: Path) -> None:
    """It is made from adapter/, which not every export has."""
    for forms, number in (("gguf", 1), ("merged,ollama", 1), ("adapter,gguf", 0), ("adapter,merged", 0)):
        config = open_run(folder, f"export.to={forms}").run.section("export")
        assert isinstance(config, export.Config)
        assert len(export.left_out(config)) == number


def test_a_base_that_has_gone_is_said(folder: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        open_run(folder, "model.base=/gone/model").foresee()


def test_a_model_that_gguf_cannot_hold_is_said_before_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    olmo = config | {"model_type": "olmo", "architectures": ["OlmoForCausalLM"]}
    (tmp_path / "model" / "config.json").write_text(json.dumps(olmo))
    base = f"model.base={tmp_path / 'model'}"
    monkeypatch.setattr("trueup.models.base.load_base", lambda *_, **__: pytest.fail("loaded weights"))
    open_run(folder, base).foresee()
    said = refused(folder, "preflight", "--set", base, "--set", "export.to=gguf")
    assert "export.to: gguf" in said and "olmo" in said


@pytest.mark.parametrize("missing", ["system_prompt", "few_shot"])
def test_a_baseline_without_what_it_is_made_of_is_said_before_training(folder: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"evaluate.baselines: {missing}, and n"):
        open_run(folder, f"evaluate.baselines=[{missing}]").foresee()
    open_run(folder, "evaluate.baselines=[base]").foresee()
