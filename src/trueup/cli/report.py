"""`trueup report`: all of a run on one page, and in two tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup.cli.document import tell, with_json
from trueup.cli.options import RUN_FILE, SET, open_run

if TYPE_CHECKING:
    from trueup.report.writing import Written
    from trueup.run.pipeline import Pipeline


@click.command()
@RUN_FILE
@SET
@with_json
def report(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Put all of a run on one page, for managers and engineers.

    runs/<name>/report.html, which fetches nothing, and beside it report-contestants.csv and report-stages.csv. All
    rounds and variants that are complete are on it, with what is missing. Builds nothing.
    """
    written = draw(open_run(run_file, overrides), run_file)
    for table in written.tables:
        click.echo(f"table: {table}")
    tell(page=str(written.page), tables=[str(path) for path in written.tables], not_shown=list(written.not_shown))


def draw(pipeline: Pipeline, run_file: Path, indent: str = "") -> Written:
    """Write the report of a run, and say where it is and what it lacks."""
    from trueup.report import writing

    whole = _whole(pipeline, run_file)
    written = writing.write(whole, run_file.name, whole.overrides)
    for line in written.not_shown:
        click.echo(f"{indent}warning: {line}", err=True)
    click.echo(f"{indent}report: {written.page}")
    return written


def _whole(pipeline: Pipeline, run_file: Path) -> Pipeline:
    """The run without the settings of the variant that a command is about: the report is on all variants."""
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load

    if not pipeline.run.variant:
        return pipeline
    keys = {override: override.partition("=")[0] for override in pipeline.overrides}
    of_variant = ("variant", "method", "round", *pipeline.stages)
    kept = tuple(override for override, key in keys.items() if key.partition(".")[0] not in of_variant)
    stages = tuple(pipeline.stages.values())
    run = load(run_file, {stage.name: stage.config for stage in stages}, kept)
    return Pipeline(run, stages, pipeline.folder.parent, kept)
