"""Commands that look at a run and build nothing: `status`, `plan`, `preflight`, `curves`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from trueup.cli.contest import contest, contest_table
from trueup.cli.document import tell, with_json
from trueup.cli.following import following
from trueup.cli.group import filled
from trueup.cli.options import AS, RUN_FILE, SET, open_run
from trueup.errors import ConfigError, StageError, TrueupError


@click.command()
@RUN_FILE
@SET
@AS
@with_json
def status(run_file: Path, overrides: tuple[str, ...]) -> None:
    """What is complete, what is stale, and what to type next.

    Of a stage that is stale it says why; of an evaluation, the verdict and the goal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    pipeline = open_run(run_file, overrides)
    of_variant = f", variant {pipeline.run.variant}" if pipeline.run.variant else ""
    title = f"{pipeline.run.name}, round {pipeline.run.round}{of_variant}"
    table = Table("stage", "state", "why", title=Text(title))
    colours = {"complete": "green", "stale": "red", "broken": "red", "partial": "yellow", "running": "cyan"}
    states = pipeline.states()
    for state in states:
        table.add_row(state.stage, Text(state.state, colours.get(state.state, "dim")), Text(state.why))
    console = Console()
    console.print(table)
    tried = contest(pipeline)
    if len(tried) > 1:
        console.print(contest_table(tried))
    missing = [*pipeline.missing(), *pipeline.unused_winners()]
    verdict = [filled(line) for line in pipeline.verdict_lines(states)]
    next_command = following(pipeline, run_file, states)
    pages = {name: pipeline.folder / f"{name}.html" for name in ("report", "curves")}
    there = {name: str(page) for name, page in pages.items() if page.exists()}
    for line in (*missing, *verdict, *(f"{name}: {page}" for name, page in there.items()), next_command):
        console.print(Text(line), soft_wrap=True)
    tell(
        run=pipeline.run.name,
        round=pipeline.run.round,
        method=pipeline.run.method,
        variant=pipeline.run.variant,
        candidates=[asdict(row) for row in tried],
        stages=[asdict(state) | {"path": str(pipeline.path(state.stage))} for state in states],
        missing=missing,
        verdict=verdict,
        report=there.get("report"),
        curves=there.get("curves"),
        next=next_command,
    )


@click.command()
@RUN_FILE
@SET
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, 24gb, 80gb, or a GPU such as t4, 4090 or h100."
)
@click.option("--probe", is_flag=True, help="Measure two real steps of each training stage, here.")
@with_json
def plan(run_file: Path, overrides: tuple[str, ...], device: str, probe: bool) -> None:
    """What each stage needs in memory and time, and what would fit.

    Loads no weights; times and memory are predicted, unless --probe measures them.
    """
    from trueup.models.device import is_hidden, signs, use_cpu
    from trueup.planning import devices, table
    from trueup.run.artifacts import Feedback

    if device.lower() == "cpu":
        use_cpu()  # the probe's processes, too
    pipeline = open_run(run_file, overrides)
    chosen = devices.find(device)
    if device == "auto" and not chosen.is_gpu and not is_hidden() and (seen := signs()):
        warn = f"warning: {seen}, and neither nvidia-smi nor torch says what it is: planned for the CPU"
        click.echo(f"{warn}; to plan for a GPU: --device and one of {', '.join(devices.GPUS)}", err=True)
    pipeline.foresee(Feedback)  # what people are asked: files that are not read for long
    made = table.make(pipeline, chosen)
    if probe:
        from trueup.progress import spinner

        if device != "auto" and chosen.name != devices.find("auto", timed=False).name:
            raise ConfigError("--probe", found=f"--device {device}", expected="this machine", next_step="leave one out")
        with spinner("probing") as say:
            made = table.probe(pipeline, made, chosen, say)
    table.show(made, chosen, pipeline.run.model.base)
    tell(run=pipeline.run.name, base=pipeline.run.model.base, **table.figures(made, chosen))


@click.command()
@RUN_FILE
@SET
@with_json
def preflight(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Are the tokens right: templates, masks, end tokens.

    Shows three samples of each stage as the model gets them, and which are cut or left out. Loads no weights.
    """
    from trueup.errors import PreflightError

    stages: dict[str, Any] = {}
    pipeline = open_run(run_file, overrides)
    tell(run=pipeline.run.name, stages=stages)
    for name, found in pipeline.preflight():
        if isinstance(found, PreflightError):
            stages[name] = {"good": False, "error": found.found}
            click.echo(f"error: {found}", err=True)
        elif isinstance(found, TrueupError):
            stages[name] = {"good": None, "waits_for": found.found}
            click.echo(f"{name}: not yet, {found.found}")
        else:
            number = len(found["warnings"])
            stages[name] = {"good": True, **found}
            click.echo(f"{name}: {number:,} warning{'s' * (number > 1)}" if number else f"{name}: good")
    if any(found["good"] is False for found in stages.values()):
        sys.exit(2)


@click.command()
@RUN_FILE
@SET
@with_json
def curves(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Draw the losses and rewards of each training stage.

    One page for all rounds of the run, runs/<name>/curves.html; of a stage that still trains, as far as it is.
    """
    from trueup.training import curves

    pipeline = open_run(run_file, overrides)
    page = curves.write(pipeline.folder, pipeline.run.name)
    if page is None:
        trains = [stage.name for stage in pipeline.order() if stage.trains]
        built = [name for name in trains if pipeline.stages[name].makes(pipeline.path(name)).is_there()]
        todo = next((name for name in trains if name not in built), None)
        raise StageError(
            str(pipeline.folder),
            found="no stage has logged a training step"
            + (f"; {', '.join(built)}: trained by an earlier version, which kept no log" if built else ""),
            expected="metrics.jsonl of a training stage",
            next_step=f"trueup {todo} RUN.yaml" if todo else f"train one anew: trueup {trains[-1]} RUN.yaml --rebuild",
        )
    click.echo(f"curves: {page}")
    tell(page=str(page), stages=curves.rows_of_stages(pipeline.folder))
