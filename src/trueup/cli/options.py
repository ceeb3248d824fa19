"""What the commands of a run have in common: its file, --set, and the run they open."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup import ranks
from trueup.cli.completion import complete_override
from trueup.cli.group import remember_folder, remember_run_file
from trueup.cli.group import typed as typed
from trueup.stages import STAGES

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import RunFile

VARIANT = "trueup.variant"  # key of click's meta: what --as says

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


def _choose_variant(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value == "":
        raise click.BadParameter("a name; is the variable set that holds it?")
    ctx.meta[VARIANT] = value


AS = click.option(
    "--as",
    "variant",
    metavar="NAME",
    expose_value=False,
    callback=_choose_variant,
    help="A second try of this round beside the first, in folders of its own, such as dpo@NAME.",
)


def open_run(run_file: Path, overrides: tuple[str, ...], options: Mapping[str, str] | None = None) -> Pipeline:
    """The run of a run file. Messages of this command name the file, and its log is in the run's folder.

    `options` says how those of the overrides were typed that came as an option of the command. A variant that is built
    keeps the overrides that it was built with; those that are typed now come after them.
    """
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load

    if variant := click.get_current_context().meta.get(VARIANT):
        given = f"variant={variant}"
        overrides = overrides if given in overrides else (*overrides, given)
        options = {given: f"--as {shlex.quote(variant)}", **(options or {})}
    remember_run_file(run_file, overrides)
    sections, root = {stage.name: stage.config for stage in STAGES}, run_file.resolve().parent / "runs"
    run = load(run_file, sections, overrides, options)
    if kept := tuple(one for one in variant_overrides(run, root / run.name) if one not in overrides):
        if ranks.is_first():
            said = " ".join(f"--set {shlex.quote(override)}" for override in kept)
            click.echo(f"variant {run.variant}: {said}, as it was built", err=True)
        overrides = (*kept, *overrides)
        run = load(run_file, sections, overrides, options)
    pipeline = Pipeline(run, STAGES, root, overrides)
    remember_folder(pipeline.folder)
    return pipeline


def variant_overrides(run: RunFile, folder: Path) -> tuple[str, ...]:
    """What the run file's variant was built with in this round, its method included; nothing where it is not built."""
    from trueup.run.candidates import candidates
    from trueup.run.naming import split

    if not run.variant:
        return ()
    methods = [stage.name for stage in STAGES if stage.alignment]
    built = [one for one in candidates(folder, run.round, methods) if split(one.name)[1] == run.variant]
    if len(built) != 1:
        return ()
    typed_then = [one for one in built[0].overrides if one.partition("=")[0] not in ("variant", "round", "method")]
    method = split(built[0].name)[0]
    return (*typed_then, *([f"method={method}"] if method != run.method else []))
