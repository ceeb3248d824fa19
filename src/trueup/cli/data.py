"""`trueup data check` and `trueup data prepare`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup.cli.document import tell, with_json
from trueup.cli.options import SET
from trueup.errors import visible

if TYPE_CHECKING:
    from trueup.data.closer import CountTokens
    from trueup.run.data_config import Source
    from trueup.run.run_file import RunFile

FILE = click.argument("file", type=click.Path(path_type=Path), metavar="FILE|RUN.yaml")


@click.group()
def data() -> None:
    """Check data files before training; make clean files of them."""


@data.command()
@FILE
@SET
@click.option("--full", is_flag=True, help="Near duplicates, language and tokens of all rows, not of 50,000.")
@click.option("--page", type=click.Path(path_type=Path), default="data-check.html", show_default=True)
@with_json
def check(file: Path, overrides: tuple[str, ...], full: bool, page: Path) -> None:
    """Every fault with its line, duplicates, leaks, lengths, languages. Exit code 2 when rows cannot be used."""
    from trueup.data import check_page
    from trueup.data.check import check, figures, findings
    from trueup.data.sources import way_on
    from trueup.progress import spinner

    _refuse_place("--page", page)
    run, sources = _sources(file, overrides)
    with spinner("reading") as say:
        surveys = check(
            sources,
            seed=run.seed if run else 0,
            full=full,
            count_tokens=_counter(run) if run else None,
            train_on=run.data.train_on if run else "last",
            say=say,
        )
    check_page.show(surveys)
    click.echo(f"page: {check_page.write(surveys, page)}")
    faults = sum(found.count for survey in surveys for found in findings(survey) if found.level == "fault")
    tell(sources=[figures(survey) for survey in surveys], num_faults=faults, page=str(page))
    for survey in surveys:
        if survey.error is not None:
            click.echo(f"error: {survey.error}", err=True)
        elif survey.reader.faults.counts:
            click.echo(visible(f"{survey.name}: {way_on(survey.reader)}"), err=True)
    if faults:
        click.echo("1 fault" if faults == 1 else f"{faults:,} faults", err=True)
        raise SystemExit(2)


@data.command()
@FILE
@SET
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--held-out", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True)
@click.option("--near-duplicates", is_flag=True, help="Drop what is nearly the same, too.")
@click.option("--seed", default=0, show_default=True, help="Of the split by prompt.")
@with_json
def prepare(
    file: Path, overrides: tuple[str, ...], out: Path, held_out: float, near_duplicates: bool, seed: int
) -> None:
    """Clean, deduplicate, split by prompt; Parquet and a record of what was dropped and why."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trueup.data.prepare import prepare
    from trueup.progress import spinner

    _, sources = _sources(file, overrides)
    with spinner("preparing") as say:
        record = prepare(sources, out, seed=seed, held_out=held_out, near=near_duplicates, say=say)
    table = Table("what", "rows", title=Text(str(out)), title_justify="left")
    for done in record["fields"].values():
        for name, written in done["written"].items():
            table.add_row(Text(f"written: {name}"), f"{written['rows']:,}")
        for why, count in done["dropped"].items():
            table.add_row(Text(f"dropped: {why}", "yellow"), f"{count:,}")
        for name, count in done["unused_fields"].items():
            table.add_row(Text(visible(f"field not written: {name}"), "yellow"), f"{count:,}")
    Console().print(table)
    tell(folder=str(out), **record)


def _refuse_place(option: str, path: Path) -> None:
    """Raises ConfigError where no file can be written, before anything is read."""
    from trueup.errors import ConfigError

    named = f"{option} {shlex.quote(str(path))}"
    if path.is_dir() or not path.name:
        inside = shlex.quote(str(path / "data-check.html"))
        raise ConfigError(named, found="this is a folder", expected="a file", next_step=f"{option} {inside}")
    if not path.parent.is_dir():
        parent = path.parent
        exists = parent.exists() or any(one.is_file() for one in parent.parents)
        cure = f"choose another place for {option}" if exists else f"mkdir -p {shlex.quote(str(parent))}"
        found = f"{parent} is no folder" if exists else f"there is no folder {parent}"
        raise ConfigError(named, found=found, expected="a file in a folder that exists", next_step=cure)
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(
            named,
            found=f"nothing may be written into {path.parent}",
            expected="a file in a folder of yours",
            next_step=f"choose another place for {option}",
        )


def _sources(file: Path, overrides: tuple[str, ...]) -> tuple[RunFile | None, dict[str, list[Source]]]:
    """(the run file or None, the sources of each of its fields, or of the file itself under its own name)."""
    from trueup.data.check import sources_of_run
    from trueup.errors import ConfigError, DataError
    from trueup.run.data_config import Source
    from trueup.run.run_file import load

    if file.suffix not in (".yaml", ".yml"):
        if overrides:
            raise ConfigError("--set", found=f"{file} is a data file", expected="a run file", next_step="leave it out")
        return None, {file.name.split(".")[0] or "data": [Source(path=file)]}
    from trueup.stages import STAGES

    run = load(file, {stage.name: stage.config for stage in STAGES}, overrides)
    sources = sources_of_run(run.data)
    if not sources:
        raise DataError(str(file), found="no data", expected="data: {demonstrations: FILE, ...}", next_step="set it")
    return run, sources


def _counter(run: RunFile) -> CountTokens | None:
    """Counts tokens by the tokenizer of the run's model; None, said once, where it is not on this disk.

    transformers would load torch, which takes longer than most files take to read: the tokenizer's file is enough.
    """
    path = _tokenizer_file(run.model.base)
    if path is None:
        click.echo(f"lengths are in characters: the tokenizer of {run.model.base} is not on this disk", err=True)
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        click.echo(f"lengths are in characters: {path} cannot be read ({error})", err=True)
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _tokenizer_file(base: str) -> Path | None:
    """The tokenizer.json of `model.base` that is on this disk: in a folder, or fetched before."""
    from trueup.models import packaged

    if base.removeprefix("package:") in packaged.PACKAGES:
        name = packaged.PACKAGES[base.removeprefix("package:")].requirement.replace("==", "-")
        path = packaged.cache_dir() / name / "tokenizer.json"
    else:
        path = Path(base).expanduser() / "tokenizer.json"
    if path.is_file():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(base, "tokenizer.json")
    except HFValidationError:  # a folder's name
        return None
    return Path(cached) if isinstance(cached, str) else None
