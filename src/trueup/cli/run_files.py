"""`trueup init` and `trueup schema`: run files, and what editors should know of them."""

from __future__ import annotations

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from trueup.errors import ConfigError
from trueup.run.files import write_text
from trueup.stages import STAGES

SCHEMA = "run.schema.json"  # the first line of a new run file points to it


@click.command()
@click.argument("run_file", type=click.Path(path_type=Path), default="run.yaml")
def init(run_file: Path) -> None:
    """Write a run file to start from, and its schema for editors. Never overwrites a run file."""
    if run_file.exists():
        is_folder = run_file.is_dir()
        another = run_file / "run.yaml" if is_folder else run_file.with_name("ANOTHER.yaml")
        found = "this is a folder" if is_folder else "it exists already"
        raise ConfigError(str(run_file), found=found, next_step=f"trueup init {shlex.quote(str(another))}")
    text = files("trueup.run").joinpath("template.yaml").read_text(encoding="utf-8")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run_file.stem).strip("-._")[:100] or "run"
    run_file.parent.mkdir(parents=True, exist_ok=True)
    methods = [stage.name for stage in STAGES if stage.alignment]
    choice = f"{', '.join(methods[:-1])} or {methods[-1]}"
    write_text(run_file, text.replace("NAME", name).replace("METHODS", choice))
    click.echo(f"wrote {run_file}")
    beside = run_file.with_name(SCHEMA)
    if _is_ours(beside):
        write_text(beside, _schema())
        click.echo(f"wrote {beside}, by which editors complete and check run files; it may be removed")
    click.echo(f"next: put your files beside it, then: trueup sft {shlex.quote(str(run_file))}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of run files, for editors."""
    click.echo(_schema(), nl=False)


def _schema() -> str:
    from trueup.run.run_file import model

    return json.dumps(model({stage.name: stage.config for stage in STAGES}).model_json_schema(), indent=2) + "\n"


def _is_ours(path: Path) -> bool:
    """True for a schema that `init` may write: there is none yet, or one of another version."""
    if not path.exists():
        return True
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("title") == "RunFile"
