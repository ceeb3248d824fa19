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

    written = writing.write(pipeline, run_file.name, pipeline.overrides)
    for line in written.not_shown:
        click.echo(f"{indent}warning: {line}", err=True)
    click.echo(f"{indent}report: {written.page}")
    return written
