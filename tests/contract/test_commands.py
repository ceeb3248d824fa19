"""Every command has the same options, its help fits 80 columns, and a stage's help lists its settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.run.stage import Stage
from trueup.stages import STAGES

PRINTS_TEXT = {"schema", "completion"}  # for editors and shells, not for people: there is nothing to put into JSON


def leaves(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*above, name))
        else:
            yield (*above, name), command


COMMANDS = dict(leaves(main))
EACH = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def said(*words: str, columns: int = 80) -> str:
    result = CliRunner().invoke(main, list(words), terminal_width=columns)
    assert result.exit_code == 0, result.output
    return result.output


@EACH
def test_options_that_all_commands_share(words: tuple[str, ...]) -> None:
    options = {option for param in COMMANDS[words].params for option in param.opts}
    assert "--debug" in options
    assert ("--json" in options) == (words[0] not in PRINTS_TEXT)
    takes_run_file = {"run_file", "file"} & options and words != ("init",)  # init writes one
    assert ("--set" in options) == bool(takes_run_file)


@EACH
def test_help_is_whole_sentences_within_80_columns(words: tuple[str, ...]) -> None:
    text = said(*words, "--help")
    assert max(map(len, text.splitlines())) <= 80
    command = COMMANDS[words]
    assert (command.help or "").strip().endswith((".", "fish"))
    for option in (param for param in command.params if isinstance(param, click.Option) and param.help):
        assert option.help and re.fullmatch(r"[A-Z].*[.\]]|auto, .*\.", option.help), option.name


def test_the_list_of_commands_is_not_cut_off() -> None:
    assert "..." not in said("--help").partition("Commands:")[2]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_help_of_a_stage_lists_its_settings_with_defaults_and_meanings(stage: Stage) -> None:
    text = " ".join(said(stage.name, "--help").split())
    shape = json.loads((Path(__file__).parents[2] / "configs" / "run.schema.json").read_text())
    for key, described in shape["$defs"][f"trueup__stages__{stage.name}__Config"]["properties"].items():
        default = json.dumps(described["default"]).strip('"')
        shown = re.search(rf" {key}: (\S+|\[[^]]*\]) ([A-Z`]\w*)", text)
        assert shown, key
        assert described["description"].startswith(shown[2])
        if isinstance(described["default"], int | float) and not isinstance(described["default"], bool):
            assert float(shown[1]) == described["default"]
        elif not isinstance(described["default"], list):
            assert shown[1] == default
