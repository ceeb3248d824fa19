"""What the commands of a run have in common: its file, --set, and the run they open."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup.cli.completion import complete_override
from trueup.cli.group import remember_folder, remember_run_file
from trueup.stages import STAGES

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline

RUN_FILE = click.argument("run_file", type=click.Path(path_type=Path), metavar="RUN.yaml")
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override the run file; may be given several times.",
    shell_complete=complete_override,
)


def _choose_device(ctx: click.Context, option: click.Parameter, value: str) -> None:
    from trueup.models import device

    if value == "cpu":
        device.use_cpu()


DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu"]),
    default="auto",
    show_default=True,
    expose_value=False,
    callback=_choose_device,
    help="Where it runs: auto is the GPU where there is one, cpu leaves it unused.",
)


def open_run(run_file: Path, overrides: tuple[str, ...], options: Mapping[str, str] | None = None) -> Pipeline:
    """The run of a run file. Messages of this command name the file, and its log is in the run's folder.

    `options` says how those of the overrides were typed that came as an option of the command.
    """
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load

    remember_run_file(run_file, overrides)
    run = load(run_file, {stage.name: stage.config for stage in STAGES}, overrides, options)
    pipeline = Pipeline(run, STAGES, run_file.resolve().parent / "runs", overrides)
    remember_folder(pipeline.folder)
    return pipeline


def typed(run_file: Path, overrides: tuple[str, ...]) -> str:
    """The run file and its overrides as a shell reads them."""
    return " ".join([shlex.quote(str(run_file)), *(f"--set {shlex.quote(override)}" for override in overrides)])
