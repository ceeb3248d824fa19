"""`trueup doctor`: what this machine can do, and what to paste into a bug report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from trueup.cli.document import tell, with_json
from trueup.cli.options import SET
from trueup.errors import TrueupError, visible

Fact = tuple[str, str]  # what, and how it is here
PORT, DATA_DIR = 8090, Path("labelstudio")  # the defaults of the run file's labelstudio section


@click.command()
@click.argument("run_file", type=click.Path(path_type=Path), required=False, metavar="[RUN.yaml]")
@SET
@with_json
def doctor(run_file: Path | None, overrides: tuple[str, ...]) -> None:
    """Print what this machine can train, and what belongs into a bug report, without secrets.

    Versions, device, memory, disk, ports, caches, settings, and whether the hub answers.
    """
    from concurrent.futures import ThreadPoolExecutor

    from trueup.cli import capacity, machine
    from trueup.run import reachable

    with ThreadPoolExecutor(2) as pool:  # what waits for an answer waits together
        asked, gpus = pool.submit(reachable.is_reachable), pool.submit(machine.ask_driver)
        written, port, data_dir = _of_run_file(run_file, overrides)
        groups: dict[str, list[Fact]] = {
            "software": list(machine.software()),
            "machine": list(machine.hardware(gpus.result())),
            "can train": list(capacity.facts(gpus.result())),
            "places": list(machine.places(port, data_dir)),
            "settings": [*machine.settings(), *machine.hub(asked.result)],
        }
    if written:
        groups["run file"] = written
    told = {title: [(_private(name), _private(value)) for name, value in facts] for title, facts in groups.items()}
    warnings = list(_warnings(groups, bool(gpus.result())))
    _show(told, warnings)
    tell(**{title.replace(" ", "_"): dict(facts) for title, facts in told.items()}, warnings=warnings)


def _of_run_file(path: Path | None, overrides: tuple[str, ...]) -> tuple[list[Fact], int, Path]:
    """(what to say of the run file, its port, its Label Studio folder)."""
    if path is None:
        return [], PORT, Path.cwd() / DATA_DIR
    from trueup.cli.fault_log import NAME
    from trueup.run.run_file import load
    from trueup.stages import STAGES

    try:
        run = load(path, {stage.name: stage.config for stage in STAGES}, overrides)
    except TrueupError as error:
        return [(str(path), str(error))], PORT, path.resolve().parent / DATA_DIR
    folder = path.resolve().parent / "runs" / run.name
    found = [(str(path), "is read"), ("model.base", run.model.base), ("adapter.kind", run.adapter.kind)]
    found += [("method", run.method), ("round", str(run.round))]
    log = folder / NAME
    found += [("folder", str(folder) if folder.is_dir() else f"{folder}, not there yet")]
    found += [("log of faults", str(log))] if log.exists() else []
    return found, run.labelstudio.port, run.labelstudio.data_dir


def _warnings(groups: dict[str, list[Fact]], has_gpu: bool) -> Iterator[str]:
    from trueup.cli import capacity

    yield from capacity.warnings(has_gpu)
    for name, value in groups["software"]:
        if value == "not installed":
            yield f"{name} is not installed: pip install trueup again"


def _show(groups: dict[str, list[Fact]], warnings: list[str]) -> None:
    """A table on a terminal; in a pipe, plain lines that can be pasted."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for title, told in groups.items():
        if console.is_terminal:
            table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
            table.add_column(no_wrap=True, style="dim")
            table.add_column(overflow="fold")
            for name, value in told:
                table.add_row(Text(name), Text(value))
            console.print(table)
        else:
            click.echo("\n".join([title, *(f"  {name}: {value}" for name, value in told)]))
    for line in warnings:
        console.print(Text(f"warning: {line}", "yellow"), soft_wrap=True)


def _private(value: str) -> str:
    """Without secrets, the home folder as ~."""
    from trueup.cli.fault_log import scrubbed

    home = str(Path.home())
    value = visible(scrubbed(value))
    return value if home == "/" else re.sub(rf"{re.escape(home)}(?=/|$|[^\w])", "~", value)
