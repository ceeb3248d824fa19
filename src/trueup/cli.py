"""One command a stage, and: run, status, schema. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trueup import __version__
from trueup.errors import TrueupError

if TYPE_CHECKING:
    from trueup.pipeline import Pipeline

STAGE_HELP = {
    "sft": "Supervised fine-tuning of an adapter on the 4-bit base.",
    "sample": "Completions to judge, from the current policy.",
    "collect": "People judge in Label Studio; freeze what they said.",
    "reward": "A reward model, as an adapter on the same base.",
    "dpo": "Align by pairs: direct preference optimization.",
    "kto": "Align by single thumbs: Kahneman-Tversky optimization.",
    "evaluate": "Is it better, by how much.",
    "export": "The adapter, merged weights and a model card.",
}

WAITING = 3  # exit code: nothing is wrong, people have not finished

RUN_FILE = click.argument("run_file", type=click.Path(path_type=Path))
SET = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override the run file.")


class Group(click.Group):
    """A TrueupError becomes its message and exit code 2, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrueupError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except Exception as error:
            from trueup.stage import Waiting

            if not isinstance(error, Waiting):
                raise
            click.echo(str(error))
            sys.exit(WAITING)


@click.group(cls=Group)
@click.version_option(__version__)
def main() -> None:
    """From thumbs to an aligned adapter, on one GPU."""


def _pipeline(run_file: Path, overrides: tuple[str, ...]) -> Pipeline:
    from trueup.config import load
    from trueup.pipeline import Pipeline
    from trueup.stages import STAGES

    run = load(run_file, {stage.name: stage.config for stage in STAGES}, overrides)
    return Pipeline(run, STAGES, run_file.resolve().parent / "runs")


def _stage_command(name: str, text: str) -> Callable[..., None]:
    @main.command(name, help=text)
    @RUN_FILE
    @SET
    @click.option("--rebuild", is_flag=True, help="Build again, keeping the old folder aside.")
    def command(run_file: Path, overrides: tuple[str, ...], rebuild: bool) -> None:
        pipeline = _pipeline(run_file, overrides)
        built = pipeline.execute(name, rebuild)
        click.echo(f"{name}: {'built' if built else 'complete already'}, {pipeline.path(name)}")

    return command


for _name, _text in STAGE_HELP.items():
    _stage_command(_name, _text)


@main.command()
@RUN_FILE
@SET
def run(run_file: Path, overrides: tuple[str, ...]) -> None:
    """All stages in order, skipping what is complete."""
    pipeline = _pipeline(run_file, overrides)
    for stage in pipeline.order():
        built = pipeline.execute(stage.name)
        click.echo(f"{stage.name}: {'built' if built else 'complete already'}")


@main.command()
@RUN_FILE
@SET
def status(run_file: Path, overrides: tuple[str, ...]) -> None:
    """What is complete, what is stale and why, and what to type next."""
    states = _pipeline(run_file, overrides).states()
    for state in states:
        click.echo(f"{state.stage:10} {state.state:10} {state.why}")
    open_stages = [state.stage for state in states if state.state != "complete"]
    click.echo(f"next: trueup {open_stages[0]} {run_file}" if open_stages else "next: nothing, all is complete")


@main.command()
def schema() -> None:
    """Print the JSON Schema of run files, for editors."""
    import json

    from trueup.config import model
    from trueup.stages import STAGES

    click.echo(json.dumps(model({stage.name: stage.config for stage in STAGES}).model_json_schema(), indent=2))


if __name__ == "__main__":
    main()
