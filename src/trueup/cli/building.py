"""A command for each stage, and `trueup run` for all of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trueup import ranks
from trueup.cli.completion import as_yaml
from trueup.cli.document import tell, with_json
from trueup.cli.following import following
from trueup.cli.group import filled
from trueup.cli.options import AS, DEVICE, RUN_FILE, SET, open_run
from trueup.cli.out_of_memory import saying_what_fits
from trueup.cli.report import draw
from trueup.errors import ConfigError
from trueup.run.artifacts import Completions, Export, Feedback, Report
from trueup.run.chain import ALIGNED
from trueup.run.stage import Stage

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline


class StageCommand(click.Command):
    """The command of a stage; its help lists the keys of the stage's section."""

    def __init__(self, *args: Any, stage: Stage, **values: Any) -> None:
        super().__init__(*args, **values)
        self.stage = stage

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The section's keys with their defaults, and the first sentence of what the schema says of each."""
        name, fields = self.stage.name, self.stage.config.model_fields
        own_first = sorted(fields, key=lambda key: key not in self.stage.config.__annotations__)
        rows = [
            (
                f"{key}: {as_yaml(fields[key].get_default(call_default_factory=True))}",
                _first_sentence(fields[key].description),
            )
            for key in own_first
        ]
        with formatter.section(f"Keys of the section {name} in the run file, also --set {name}.KEY=VALUE"):
            formatter.write_dl(rows, col_max=26)


def command_of(stage: Stage) -> click.Command:
    """`trueup <stage> RUN.yaml`."""

    @click.command(stage.name, cls=StageCommand, stage=stage, help=stage.help)
    @RUN_FILE
    @SET
    @click.option("--rebuild", is_flag=True, help="Build again, keeping the old folder aside.")
    @click.option("--use-stale", is_flag=True, help="Build on what came before although it is stale; recorded.")
    @click.option("--discard-labels", is_flag=True, help="With --rebuild: although people judged what is replaced.")
    @_refresh(stage)
    @_flags(stage)
    @_own_variant(stage)
    @DEVICE
    @with_json
    def command(
        run_file: Path,
        overrides: tuple[str, ...],
        rebuild: bool,
        use_stale: bool,
        discard_labels: bool,
        refresh: bool = False,
        **flags: str | bool | None,
    ) -> None:
        given = {key: value for key, value in flags.items() if value is not None}
        options = {stage.shorthands[key][0]: _typed(key, True) for key in stage.shorthands if given.pop(key, False)}
        options |= {f"{stage.name}.{key}={_as_text(value)}": _typed(key, value) for key, value in given.items()}
        overrides += tuple(options)
        pipeline = open_run(run_file, overrides, options)
        for line in pipeline.missing_files(besides=stage.name):
            click.echo(f"warning: {line}", err=True)
        if stage.trains or stage.makes is Completions:
            pipeline.foresee(Feedback)  # before hours of work for people who would be asked something wrong
        rebuild |= bool(given.keys() & set(stage.refreshed_by)) or (refresh and bool(pipeline.since(stage.name)))
        with saying_what_fits(pipeline, stage.name):
            built = pipeline.execute(stage.name, rebuild, use_stale=use_stale, discard_labels=discard_labels)
        if not ranks.is_first():
            return
        _say_built(pipeline, stage.name, built)
        if refresh and not built:
            click.echo(f"{stage.name}: nothing is newer than this")
        afterwards = pipeline.afterwards(stage.name)
        for line in (*pipeline.says(stage.name), *afterwards):
            click.echo(f"  {filled(line)}")
        if built:
            _draw(pipeline, stage, run_file)
        passing = {option for option in options if _passes(stage, option)}
        kept = tuple(one for one in overrides if one not in passing)
        onward = open_run(run_file, kept) if passing else pipeline
        if stage.alignment and pipeline.run.variant and stage.name != pipeline.run.method:
            onward = open_run(run_file, overrides, options)  # a variant is of the method that it was built with
        following_command = following(onward, run_file, onward.states())
        click.echo(following_command)
        tell(run=pipeline.run.name, **_figures(pipeline, stage, built, afterwards), next=following_command)

    return command


def _passes(stage: Stage, option: str) -> bool:
    """Whether an option is of this command alone: the next command need not repeat it."""
    of_stage = {f"{stage.name}.{key}" for key in stage.apart}
    return option.partition("=")[0] in of_stage or option in {override for override, _ in stage.shorthands.values()}


def _own_variant(stage: Stage) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--as, for the stages of which each variant has its own."""
    return AS if stage.alignment or ALIGNED in stage.needs.values() else lambda command: command


def _as_text(value: str | bool) -> str:
    """An option's value as --set takes it; what YAML would read as nothing is in quotes, to be refused by name."""
    return f'"{value}"' if isinstance(value, str) and value.strip() in ("", "~", "null") else as_yaml(value)


def _typed(key: str, value: str | bool) -> str:
    """An option of a stage as it is typed."""
    option = f"--{key.replace('_', '-')}"
    return option if isinstance(value, bool) else f"{option} {shlex.quote(value)}"


def _refresh(stage: Stage) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--refresh, of a stage that can tell what is newer outside than what it made."""
    words = "Build again where people changed or added something since; else leave it as it is."
    return click.option("--refresh", is_flag=True, help=words) if stage.since is not None else lambda command: command


def _flags(stage: Stage) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options that are keys: `--to adapter,gguf` is `--set export.to=adapter,gguf`, and so are a stage's shorthands."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for key, (_, words) in stage.shorthands.items():
            command = click.option(f"--{key}", key, is_flag=True, default=None, help=words)(command)
        for key in reversed(stage.flags):
            field = stage.config.model_fields[key]
            name, is_flag = f"--{key.replace('_', '-')}", field.annotation is bool
            command = click.option(name, key, is_flag=is_flag, default=None, help=field.description)(command)
        return command

    return add


@click.command()
@RUN_FILE
@SET
@AS
@DEVICE
@with_json
def run(run_file: Path, overrides: tuple[str, ...]) -> None:
    """All stages in order, skipping what is complete."""
    play(open_run(run_file, overrides), run_file)


def play(pipeline: Pipeline, run_file: Path) -> None:
    """Build every stage of a run that is not complete, in order, and say what came of it."""
    if lines := pipeline.missing_files():
        again = "put the files there or correct the data section, then: trueup run RUN.yaml"
        raise ConfigError(str(run_file), found="\n  ".join(lines), next_step=again)
    pipeline.foresee()
    done: list[dict[str, Any]] = []
    tell(run=pipeline.run.name, round=pipeline.run.round, stages=done)
    for stage in pipeline.order():
        with saying_what_fits(pipeline, stage.name):
            built = pipeline.execute(stage.name)
        if not ranks.is_first():
            continue
        _say_built(pipeline, stage.name, built)
        afterwards = pipeline.afterwards(stage.name)
        for line in (*(pipeline.says(stage.name) if built else []), *afterwards):
            click.echo(f"  {filled(line)}")
        done.append(_figures(pipeline, stage, built, afterwards))
        if built:
            _draw(pipeline, stage, run_file)
    if not ranks.is_first():
        return
    verdict = [filled(line) for line in pipeline.verdict_lines()]
    for line in verdict:
        click.echo(line)
    tell(verdict=verdict)


def _say_built(pipeline: Pipeline, name: str, built: bool) -> None:
    click.echo(f"{name}: {'built' if built else 'complete already'}, {pipeline.path(name)}")
    if not built and (news := pipeline.since(name)):
        click.echo(f"{name}: {news}")


def _draw(pipeline: Pipeline, stage: Stage, run_file: Path) -> None:
    """Bring the page up to date that a stage which was just built changes: the curves of the run, or its report."""
    from trueup.training import curves

    if stage.makes in (Report, Export):
        draw(pipeline, run_file, indent="  ")
    elif stage.trains and (page := curves.write(pipeline.folder, pipeline.run.name)):
        click.echo(f"  curves: {page}")


def _figures(pipeline: Pipeline, stage: Stage, built: bool, afterwards: list[str]) -> dict[str, Any]:
    """What --json says of a complete stage: the figures of its record, and in words what a person is told."""
    record = stage.makes(pipeline.path(stage.name)).record()
    return {
        "stage": stage.name,
        "built": built,
        "path": str(pipeline.path(stage.name)),
        "seconds": record.get("wall_s"),
        "peak_rss_bytes": record.get("peak_rss_bytes"),
        "device_name": record.get("device_name"),
        "peak_vram_bytes": record.get("peak_vram_bytes"),
        "metrics": record["metrics"],
        "says": [filled(line) for line in (*pipeline.says(stage.name), *afterwards)],
    }


def _first_sentence(text: str | None) -> str:
    return (text or "").partition("; ")[0].partition(". ")[0].rstrip(".") + "."
