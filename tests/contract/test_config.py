"""The run file: every fault at once, with its line and the nearest name."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from trueup.cli import STAGE_HELP, main
from trueup.config import load
from trueup.errors import ConfigError
from trueup.stages import STAGES

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


def test_a_missing_file_and_broken_yaml_exit_2_without_traceback(tmp_path: Path) -> None:
    missing = CliRunner().invoke(main, ["sft", str(tmp_path / "no.yaml")])
    broken = CliRunner().invoke(main, ["sft", str(write(tmp_path, "name: [x\n"))])
    assert (missing.exit_code, broken.exit_code) == (2, 2)
    assert "no such file" in missing.output
    assert "run.yaml:2: not YAML" in broken.output


def test_every_stage_has_a_command() -> None:
    assert set(STAGE_HELP) == {stage.name for stage in STAGES}


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("configs/*.yaml")), ids=lambda p: p.name)
def test_every_config_loads(path: Path) -> None:
    load(path, SECTIONS)


def test_the_schema_in_configs_is_the_current_one() -> None:
    written = (Path(__file__).parents[2] / "configs" / "run.schema.json").read_text()
    assert CliRunner().invoke(main, ["schema"]).output == written
