"""One command for each stage, and those that look at a run. Heavy imports are made inside."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup import __version__
from trueup.cli.data import data
from trueup.cli.doctor import doctor
from trueup.cli.group import Group, debug_option, remember_folder, remember_run_file
from trueup.cli.labelstudio import labelstudio
from trueup.cli.run_files import init, schema
from trueup.errors import ConfigError, TrueupError
from trueup.stages import STAGES

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline, State
    from trueup.run.stage import Stage

METHODS = [stage.name for stage in STAGES if stage.alignment]

RUN_FILE = click.argument("run_file", type=click.Path(path_type=Path))
SET = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override the run file.")


@click.group(cls=Group, params=[debug_option()])
@click.version_option(__version__)
def main() -> None:
    """From thumbs to an aligned adapter, on one GPU."""
    import os

    from trueup.models import device, noise

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look into every installed package for some
    device.use_one_gpu()
    noise.sift()  # before any of the libraries is imported: some warn at once


main.add_command(init)


def _pipeline(run_file: Path, overrides: tuple[str, ...]) -> Pipeline:
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load

    remember_run_file(run_file, overrides)
    run = load(run_file, {stage.name: stage.config for stage in STAGES}, overrides)
    pipeline = Pipeline(run, STAGES, run_file.resolve().parent / "runs", overrides)
    remember_folder(pipeline.folder)
    return pipeline


def _typed(run_file: Path, overrides: tuple[str, ...]) -> str:
    return " ".join([shlex.quote(str(run_file)), *(f"--set {shlex.quote(override)}" for override in overrides)])


def _flags(stage: Stage) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options that are keys of a stage's section: `--to adapter,gguf` is `--set export.to=adapter,gguf`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for key in reversed(stage.flags):
            field = stage.config.model_fields[key]
            said, is_flag = " ".join((field.description or "").split()), field.annotation is bool
            option = click.option(f"--{key.replace('_', '-')}", key, is_flag=is_flag, default=None, help=said)
            command = option(command)
        return command

    return add


def _stage_command(stage: Stage) -> Callable[..., None]:
    name = stage.name

    @main.command(name, help=stage.help)
    @RUN_FILE
    @SET
    @click.option("--rebuild", is_flag=True, help="Build again, keeping the old folder aside.")
    @click.option("--use-stale", is_flag=True, help="Build on what came before although it is stale; recorded.")
    @click.option("--discard-labels", is_flag=True, help="With --rebuild: although people judged what is replaced.")
    @_flags(stage)
    def command(
        run_file: Path,
        overrides: tuple[str, ...],
        rebuild: bool,
        use_stale: bool,
        discard_labels: bool,
        **flags: str | bool | None,
    ) -> None:
        overrides += tuple(
            f"{name}.{key}={'true' if value is True else value}" for key, value in flags.items() if value
        )
        pipeline = _pipeline(run_file, overrides)
        for line in pipeline.missing_files(besides=name):
            click.echo(f"warning: {line}", err=True)
        built = pipeline.execute(name, rebuild, use_stale=use_stale, discard_labels=discard_labels)
        _say_built(pipeline, name, built)
        for line in (*pipeline.says(name), *pipeline.afterwards(name)):
            click.echo(f"  {line}")
        click.echo(_next(pipeline, run_file, pipeline.states()))

    return command


def _say_built(pipeline: Pipeline, name: str, built: bool) -> None:
    click.echo(f"{name}: {'built' if built else 'complete already'}, {pipeline.path(name)}")
    if not built and (news := pipeline.since(name)):
        click.echo(f"{name}: {news}")


def _next(pipeline: Pipeline, run_file: Path, states: list[State]) -> str:
    """The command that goes on. What a stage was built with and the run file lacks is kept, not built over."""
    forgotten = tuple(dict.fromkeys(override for state in states for override in state.remembered))
    if forgotten:
        remembering = _pipeline(run_file, (*forgotten, *pipeline.overrides))
        again = remembering.states()
        if not any(state.remembered for state in again):
            said = " and ".join(f"--set {shlex.quote(override)}" for override in forgotten)
            was, it = ("was", "it") if len(forgotten) == 1 else ("were", "them")
            note = f"{said} {was} typed when this was built: write {it} into {run_file.name}, or keep typing {it}\n"
            return note + _command(remembering, run_file, again)
    return _command(pipeline, run_file, states)


def _command(pipeline: Pipeline, run_file: Path, states: list[State]) -> str:
    from trueup.run.goal import NOT_MET

    todo = next((state for state in states if state.state != "complete"), None)
    if todo is None and any(line.endswith(NOT_MET) for line in pipeline.verdict_lines(states)):
        later = (*pipeline.overrides, f"round={pipeline.run.round + 1}")
        return (
            "all is complete, and the goal is not met: docs/choosing.md says what else there is\n"
            f"next: for another round of judgements: trueup sample {_typed(run_file, later)}"
        )
    if todo is None:
        return "next: nothing, all is complete"
    if todo.state == "running":
        return f"next: wait for {todo.stage}, or stop it with Ctrl+C where it runs; the same command goes on"
    rebuild = " --rebuild" if todo.state in ("stale", "broken") else ""
    return f"next: trueup {todo.stage} {_typed(run_file, pipeline.overrides)}{rebuild}"


for _stage in STAGES:
    _stage_command(_stage)


@main.command()
@RUN_FILE
@SET
def run(run_file: Path, overrides: tuple[str, ...]) -> None:
    """All stages in order, skipping what is complete."""
    pipeline = _pipeline(run_file, overrides)
    if lines := pipeline.missing_files():
        again = "put the files there or correct the data section, then: trueup run RUN.yaml"
        raise ConfigError(str(run_file), found="\n  ".join(lines), next_step=again)
    pipeline.foresee()
    for stage in pipeline.order():
        built = pipeline.execute(stage.name)
        _say_built(pipeline, stage.name, built)
        for line in (*(pipeline.says(stage.name) if built else []), *pipeline.afterwards(stage.name)):
            click.echo(f"  {line}")
    for line in pipeline.verdict_lines():
        click.echo(line)


@main.command()
@RUN_FILE
@SET
def status(run_file: Path, overrides: tuple[str, ...]) -> None:
    """What is complete, what is stale and why, the goal, and what to type next."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    pipeline = _pipeline(run_file, overrides)
    table = Table("stage", "state", "why", title=Text(f"{pipeline.run.name}, round {pipeline.run.round}"))
    colours = {"complete": "green", "stale": "red", "broken": "red", "partial": "yellow", "running": "cyan"}
    states = pipeline.states()
    for state in states:
        table.add_row(state.stage, Text(state.state, colours.get(state.state, "dim")), Text(state.why))
    console = Console()
    console.print(table)
    for line in (*pipeline.missing(), *pipeline.verdict_lines(states), _next(pipeline, run_file, states)):
        console.print(Text(line), soft_wrap=True)


@main.command()
@RUN_FILE
@SET
@click.option("--device", default="auto", show_default=True, help="auto, cpu, t4, 24gb or 80gb.")
@click.option("--probe", is_flag=True, help="Measure two real steps of each training stage, here.")
def plan(run_file: Path, overrides: tuple[str, ...], device: str, probe: bool) -> None:
    """What will run, what it needs in memory and time, and what would make it fit. Loads no weights."""
    from trueup.planning import devices, table

    pipeline = _pipeline(run_file, overrides)
    chosen = devices.find(device)
    made = table.make(pipeline, chosen)
    if probe:
        from trueup.progress import spinner

        if chosen != devices.find("auto"):
            raise ConfigError("--probe", found=f"--device {device}", expected="this machine", next_step="leave one out")
        with spinner("probing") as say:
            made = table.probe(pipeline, made, chosen, say)
    table.show(made, chosen, pipeline.run.model.base)


@main.command()
@RUN_FILE
@SET
def preflight(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Are the tokens right: templates, masks, end tokens, and which samples are cut. Loads no weights."""
    from trueup.errors import PreflightError

    failed = False
    for name, found in _pipeline(run_file, overrides).preflight():
        if isinstance(found, PreflightError):
            failed = True
            click.echo(f"error: {found}", err=True)
        elif isinstance(found, TrueupError):
            click.echo(f"{name}: not yet, {found.found}")
        else:
            number = len(found["warnings"])
            click.echo(f"{name}: {number:,} warning{'s' * (number > 1)}" if number else f"{name}: good")
    if failed:
        sys.exit(2)


@main.command()
@click.option("--human", is_flag=True, help="Wait for your own thumbs instead of simulated annotators.")
@click.option("--seed", default=0, show_default=True, help="Varies adapter, data order, sampling and annotators.")
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option("--port", type=click.IntRange(1024, 65535), default=8090, show_default=True, help="Of Label Studio.")
def demo(human: bool, seed: int, method: str, port: int) -> None:
    """The whole loop on a 135M model: SFT, sampling, thumbs in Label Studio, alignment, the verdict."""
    from trueup.demo import play

    play(Path.cwd(), human=human, seed=seed, method=method, port=port)


main.add_command(data)
main.add_command(labelstudio)
main.add_command(doctor)
main.add_command(schema)

if __name__ == "__main__":
    main()
