"""One command a stage, and: run, status, preflight, init, labelstudio, demo, schema. Heavy imports are made inside."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trueup import __version__
from trueup.cli.data import data
from trueup.errors import ConfigError, TrueupError
from trueup.stages import STAGES

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline, State

METHODS = [stage.name for stage in STAGES if stage.alignment]

WAITING = 3  # exit code: nothing is wrong, people have not finished
INTERRUPTED = 130  # as a shell says of SIGINT

RUN_FILE = click.argument("run_file", type=click.Path(path_type=Path))
SET = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override the run file.")


class Group(click.Group):
    """What a user can cause becomes one message and exit code 2, Ctrl+C a line and 130; never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order one types them, not of the alphabet."""
        first = ["init", *(stage.name for stage in STAGES)]
        return [*first, *(name for name in self.commands if name not in first)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nstopped; what was made is kept, and the same command goes on", err=True)
            sys.exit(INTERRUPTED)
        except TrueupError as error:
            click.echo("error: " + str(error).replace(" RUN.yaml", f" {ctx.obj or 'RUN.yaml'}"), err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno == errno.EPIPE:  # `trueup status | head`: click ends quietly
                raise
            found = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            click.echo(f"error: {found}", err=True)
            sys.exit(2)
        except Exception as error:
            from trueup.run.stage import Waiting

            if not isinstance(error, Waiting):
                raise
            click.echo(str(error))
            sys.exit(WAITING)
        finally:
            if "rich.console" in sys.modules:  # a progress bar that was interrupted leaves the cursor hidden
                sys.modules["rich.console"].Console().show_cursor(True)


@click.group(cls=Group)
@click.version_option(__version__)
def main() -> None:
    """From thumbs to an aligned adapter, on one GPU."""
    import logging
    import os

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look into every installed package for some
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # before its import: on a CPU it advises a GPU kernel


main.add_command(data)


def _pipeline(run_file: Path, overrides: tuple[str, ...]) -> Pipeline:
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load

    click.get_current_context().find_root().obj = shlex.quote(str(run_file))  # what messages tell the user to type
    run = load(run_file, {stage.name: stage.config for stage in STAGES}, overrides)
    return Pipeline(run, STAGES, run_file.resolve().parent / "runs", overrides)


def _stage_command(name: str, text: str) -> Callable[..., None]:
    @main.command(name, help=text)
    @RUN_FILE
    @SET
    @click.option("--rebuild", is_flag=True, help="Build again, keeping the old folder aside.")
    def command(run_file: Path, overrides: tuple[str, ...], rebuild: bool) -> None:
        pipeline = _pipeline(run_file, overrides)
        for line in pipeline.missing_files(besides=name):
            click.echo(f"warning: {line}", err=True)
        built = pipeline.execute(name, rebuild)
        click.echo(f"{name}: {'built' if built else 'complete already'}, {pipeline.path(name)}")
        if name == "evaluate":
            _say_verdict(pipeline)
        click.echo(_next(pipeline, pipeline.states()))

    return command


def _next(pipeline: Pipeline, states: list[State]) -> str:
    todo = next((state for state in states if state.state != "complete"), None)
    if todo is None:
        return "next: nothing, all is complete"
    chosen = "".join(f" --set {shlex.quote(override)}" for override in pipeline.overrides)
    rebuild = " --rebuild" if todo.state == "stale" else ""
    return f"next: trueup {todo.stage} {click.get_current_context().find_root().obj}{chosen}{rebuild}"


def _say_verdict(pipeline: Pipeline) -> None:
    for line in pipeline.verdict_lines():
        click.echo(line)


for _stage in STAGES:
    _stage_command(_stage.name, _stage.help)


@main.command()
@RUN_FILE
@SET
def run(run_file: Path, overrides: tuple[str, ...]) -> None:
    """All stages in order, skipping what is complete."""
    pipeline = _pipeline(run_file, overrides)
    if lines := pipeline.missing_files():
        again = "put the files there or mend the data section, then: trueup run RUN.yaml"
        raise ConfigError(str(run_file), found="\n  ".join(lines), next_step=again)
    for stage in pipeline.order():
        built = pipeline.execute(stage.name)
        click.echo(f"{stage.name}: {'built' if built else 'complete already'}")
    _say_verdict(pipeline)


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
    colours = {"complete": "green", "stale": "red", "partial": "yellow"}
    states = pipeline.states()
    for state in states:
        table.add_row(state.stage, Text(state.state, colours.get(state.state, "dim")), Text(state.why))
    console = Console()
    console.print(table)
    for line in pipeline.verdict_lines():
        console.print(Text(line), soft_wrap=True)
    console.print(Text(_next(pipeline, states)), soft_wrap=True)


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
            click.echo(f"{name}: {len(found['warnings'])} warnings" if found["warnings"] else f"{name}: good")
    if failed:
        sys.exit(2)


@main.command()
@click.argument("run_file", type=click.Path(path_type=Path), default="run.yaml")
def init(run_file: Path) -> None:
    """Write a run file to start from. Never overwrites one."""
    import re
    from importlib.resources import files

    if run_file.exists():
        raise ConfigError(str(run_file), found="it exists already", next_step="trueup init ANOTHER.yaml")
    text = files("trueup.run").joinpath("template.yaml").read_text(encoding="utf-8")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run_file.stem).strip("-._") or "run"
    run_file.write_text(text.replace("NAME", name), encoding="utf-8")
    click.echo(f"wrote {run_file}\nnext: put your files beside it, then: trueup sft {run_file}")


@main.group()
def labelstudio() -> None:
    """The Label Studio server that trueup runs for you, on 127.0.0.1."""


SERVER_OPTIONS = (
    click.option("--data-dir", type=click.Path(path_type=Path), default="labelstudio", show_default=True),
    click.option("--port", type=click.IntRange(1024, 65535), default=8090, show_default=True),
)


@labelstudio.command("start")
@SERVER_OPTIONS[0]
@SERVER_OPTIONS[1]
def labelstudio_start(data_dir: Path, port: int) -> None:
    """Start it, or find it running."""
    from trueup.feedback import server
    from trueup.progress import spinner

    with spinner("starting Label Studio") as say:
        server.start(data_dir.resolve(), port, say)
    _say_login(data_dir)


@labelstudio.command("stop")
@SERVER_OPTIONS[0]
def labelstudio_stop(data_dir: Path) -> None:
    """Stop it; the data stays."""
    from trueup.feedback import server

    click.echo("stopped" if server.stop(data_dir.resolve()) else "it was not running")


@labelstudio.command("status")
@SERVER_OPTIONS[0]
def labelstudio_status(data_dir: Path) -> None:
    """Is it running, and where."""
    from trueup.feedback import server

    if server.is_running(data_dir.resolve()):
        _say_login(data_dir)
    else:
        click.echo(f"not running; start it with: trueup labelstudio start --data-dir {data_dir}")


def _say_login(data_dir: Path) -> None:
    from trueup.feedback import server

    known = server.login(data_dir.resolve())
    click.echo(f"running at {known['url']}\nlog in as {known['email']}, password in {data_dir / 'credentials.json'}")


@main.command()
@click.option("--human", is_flag=True, help="Wait for your own thumbs instead of simulated annotators.")
@click.option("--seed", default=0, show_default=True, help="Varies adapter, data order, sampling and annotators.")
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option("--port", type=click.IntRange(1024, 65535), default=8090, show_default=True, help="Of Label Studio.")
def demo(human: bool, seed: int, method: str, port: int) -> None:
    """The whole loop on a 135M model: SFT, sampling, thumbs in Label Studio, alignment, the verdict."""
    from trueup.demo import play

    play(Path.cwd(), human=human, seed=seed, method=method, port=port)


@main.command()
def schema() -> None:
    """Print the JSON Schema of run files, for editors."""
    import json

    from trueup.run.run_file import model

    click.echo(json.dumps(model({stage.name: stage.config for stage in STAGES}).model_json_schema(), indent=2))


if __name__ == "__main__":
    main()
