"""Write the pages that are made from the code: docs/configuration.md, docs/commands.md and docs/messages.md.

Run it by `make reference`. A test compares the committed pages with what this makes now; the site is built from what it
makes now (docs/site/hooks.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import messages
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trueup.cli.main import main
from trueup.run import data_config, faults, run_file
from trueup.run.section import Section
from trueup.stages import STAGES

DOCS = Path(__file__).parents[1]

CONFIGURATION = """# Configuration reference

Every key of the run file, with its type, default and meaning. This page is made from the code that reads the run file
by `make reference`; `trueup schema` prints the same as a JSON Schema, by which editors complete and check run files.

Unknown keys are refused, and all faults of a file are reported at once, with their lines. Relative paths are relative
to the run file. On the command line, `--set SECTION.KEY=VALUE` overrides a key, and the record of the stage keeps it.
A section that is left out has its defaults; only `name` is required.
"""

COMMANDS = """# Command reference

Every command with its options, made from the code by `make reference`. `trueup COMMAND --help` prints the same.

A command that succeeds ends with exit code 0. Exit code 2 means that something the user can correct is wrong: the
message says where, what was found, what was expected, and what to type next. Exit code 3 means that people have not
finished judging. Exit code 1 is a fault of trueup itself, and 130 follows Ctrl+C.
"""

ITEMS = {"A source of `data`": data_config.Source, "An example of `few_shot`": data_config.Shot}


def configuration() -> str:
    """docs/configuration.md: a table for the keys at the top, one for each section, one for each kind of item."""
    shape = run_file.model({stage.name: stage.config for stage in STAGES})
    sections = {name: field.annotation for name, field in shape.model_fields.items() if _is_section(field.annotation)}
    stages = {stage.name: stage.help for stage in STAGES}
    top = {name: field for name, field in shape.model_fields.items() if name not in sections}
    parts = [CONFIGURATION, "## At the top\n", _table(top)]
    for name, section in sections.items():
        said = stages.get(name, _first_line(section))
        parts += [f"## `{name}`\n", f"{said}\n", _table(section.model_fields)]
    for name, item in ITEMS.items():
        parts += [f"## {name}\n", f"{_first_line(item)}\n", _table(item.model_fields)]
    return "\n".join(parts)


def commands() -> str:
    """docs/commands.md: each command with its arguments and options."""
    return "\n".join([COMMANDS, *_commands(main, "trueup", None)])


def _commands(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    usage = " ".join([path, *(piece for piece in command.collect_usage_pieces(context))])
    yield f"## {path}\n" if path.count(" ") < 2 else f"### {path}\n"
    yield f"    {usage}\n"
    yield f"{(command.help or '').strip()}\n"
    options = [one.get_help_record(context) for one in command.params if isinstance(one, click.Option)]
    rows = [record for record in options if record is not None]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield "\n".join(f"| `{_cell(name)}` | {_cell(said)} |" for name, said in rows) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _commands(command.commands[name], f"{path} {name}", context)


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = [
        f"| `{name}` | {_kind(field)} | {_default(field)} | {_cell(field.description or '')} |"
        for name, field in fields.items()
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _kind(field: FieldInfo) -> str:
    if _holds(field.annotation, data_config.Source):
        return "a path, `{path, weight, columns}`, or a list of these"
    return _cell(faults.words(field))


def _holds(annotation: Any, kind: type[BaseModel]) -> bool:
    if get_origin(annotation) is None:
        return annotation is kind
    return any(_holds(one, kind) for one in get_args(annotation))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None or (isinstance(value, (tuple, list, dict)) and not value):
        return "none"
    if isinstance(value, float) and value:
        return f"`{value:g}`" if "e" in f"{value:g}" or value != int(value) else f"`{value}`"
    return f"`{value}`" if isinstance(value, str | Path) else f"`{json.dumps(value, default=str)}`"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _cell(text: str) -> str:
    """Text inside a table: on one line, its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"configuration.md": configuration, "commands.md": commands, "messages.md": messages.page}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
        print(f"wrote docs/{name}")
