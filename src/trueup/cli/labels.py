"""`trueup labels export` and `trueup labels report`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trueup.cli.document import tell, with_json
from trueup.cli.group import DOCUMENT
from trueup.cli.options import RUN_FILE, SET, open_run, typed
from trueup.errors import ConfigError, DataError, StageError

if TYPE_CHECKING:
    from trueup.run.artifacts import Feedback
    from trueup.run.pipeline import Pipeline

STANDARD_OUTPUT = Path("-")
FORMATS = ("trl-dpo", "trl-reward", "trl-kto", "jsonl", "parquet")


@click.group()
def labels() -> None:
    """Look at what people said; take it to other tools."""


@labels.command()
@RUN_FILE
@SET
@click.option(
    "--format", "form", type=click.Choice(FORMATS), required=True, help="Of jsonl and parquet, a row is a judgement."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new file, FILE.jsonl or FILE.parquet; - writes JSON Lines to standard output.",
)
@click.option(
    "--split", type=click.Choice(("train", "held_out", "all")), default="all", help="Of the prompts.", show_default=True
)
@with_json
def export(run_file: Path, overrides: tuple[str, ...], form: str, out: Path, split: str) -> None:
    """Write the judgements that collect froze in the columns of TRL's trainers, or as they are.

    The forms trl-dpo, trl-reward and trl-kto are conversational, and have the weights, the annotators and the split
    as further columns.
    """
    from trueup.feedback import exporting
    from trueup.run.artifacts import Feedback, write_jsonl

    pipeline = open_run(run_file, overrides)
    _refuse_place(out, form)
    frozen = Feedback(pipeline.path("collect"))
    if not frozen.is_there():
        raise StageError(
            str(frozen.path),
            found="no judgements are frozen yet",
            expected="a complete stage collect",
            next_step=f"trueup collect {typed(run_file, overrides)}",
        )
    annotations = _annotations(frozen)
    people = exporting.people_of(annotations)
    if form in exporting.PAIRED:
        rows = exporting.PAIRED[form](_of_split(frozen, "pairs", split), people)
    elif form == "trl-kto":
        rows = exporting.kto(_of_split(frozen, "rows", split), people)
    else:
        given = [*_of_split(frozen, "rows", "all"), *_of_split(frozen, "pairs", "all")]
        completions = judged_so_far(pipeline, typed(run_file, overrides))[1]
        rows = exporting.judgements(annotations, completions, {row["prompt_id"]: row["split"] for row in given})
        rows = [row for row in rows if split in ("all", row["split"])]
    if out == STANDARD_OUTPUT:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False).encode())
    elif out.suffix == ".parquet":
        _write_parquet(out, rows)
    else:
        write_jsonl(out, rows)
    counts = Counter(str(row["split"]) for row in rows)
    said = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
    where = "" if out == STANDARD_OUTPUT else f" in {out}"
    click.echo(f"{len(rows):,} rows ({said or 'none'}){where}", err=out == STANDARD_OUTPUT)
    tell(file=str(out), format=form, num_rows=len(rows), by_split=dict(counts))


@labels.command()
@RUN_FILE
@SET
@with_json
def report(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Draw a page on the labels: agreement, each person, leanings, what is disputed.

    Of the judgements that collect froze, or, while people are still judging, of those that it has pulled so far.
    """
    from trueup.feedback import checks, quality, quality_page
    from trueup.feedback.judgement import from_row

    pipeline = open_run(run_file, overrides)
    lines, completions, state = judged_so_far(pipeline, typed(run_file, overrides))
    lines, checked = (_with_names(rows, _names(pipeline)) for rows in (lines, _checks(pipeline)))
    judgements = [one for line in lines for one in from_row(line) if not one.adjudicated]
    found = quality.figures(judgements, completions) | checks.figures(checked, judgements)
    title = f"{pipeline.run.name}, round {pipeline.run.round}: labels, {state}"
    page = pipeline.path("collect").parent / "labels.html"
    quality_page.write(page, title, found, judgements, completions)
    click.echo(f"page: {page}")
    told = found if found["people"] else {name: found[name] for name in ("prefers_longer", "num_unnamed")}
    tell(page=str(page), state=state, **told)


def _names(pipeline: Pipeline) -> dict[str, str]:
    """id -> "NAME (id)" of the people on our own server who agreed to be named."""
    from trueup.feedback import people

    settings = pipeline.run.labelstudio
    known = people.everybody(settings.data_dir) if settings.url is None else []
    return {str(person.id): person.label for person in known if person.named}


def _with_names(lines: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """Judgements of Label Studio, by those who agreed to be named under their names."""
    return [
        line
        if line.get("annotation_id") is None
        else line | {"annotator": names.get(line["annotator"], line["annotator"])}
        for line in lines
    ]


def judged_so_far(pipeline: Pipeline, run: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """(judgements as lines, completions, how far) of this round. Raises StageError where nobody has judged yet."""
    from trueup.feedback import use
    from trueup.run.artifacts import COMPLETION, Completions, Feedback, read_rows

    frozen, sampled = Feedback(pipeline.path("collect")), Completions(pipeline.path("sample"))
    if frozen.is_there():
        rows = {row["uid"]: row | {"messages": row["prompt"]} for row in _of_split(frozen, "rows", "all")}
        judged = frozen.path / "completions.jsonl"  # of files; before these wrote it, what was trained on is known
        given = Completions(frozen.path).rows() if judged.is_file() else list(rows.values())
        completions = sampled.rows() if sampled.is_there() and not judged.is_file() else given
        if (used := frozen.path / use.FILE).exists():
            completions = [*read_rows(used, COMPLETION), *completions]
        return _annotations(frozen), completions, "as they were frozen"
    completions = sampled.rows() if sampled.is_there() else []
    asked = {row["uid"] for row in completions}
    pulled = _pulled(pipeline)[0]
    broken = _broken(pipeline)
    if lines := [row for row in pulled if row["uid"] in asked or asked.issuperset((row.get("a"), row.get("b")))]:
        state = "as far as they were pulled"
        lost = f"; what cannot be read: {', '.join(broken[:5])}{_and_more(broken)}" if broken else ""
        return lines, completions, state + lost
    if broken:
        raise DataError(
            str(pipeline.folder / "store"),
            found=f"no judgement that can be read; what cannot be read: {', '.join(broken[:5])}{_and_more(broken)}",
            expected="lines as trueup wrote them",
            next_step="restore the folder from a copy; or move it aside, and pull what Label Studio still has: "
            f"trueup collect {run}",
        )
    raise StageError(
        str(frozen.path), found="nobody has judged yet", expected="judgements", next_step=f"trueup collect {run}"
    )


def _annotations(frozen: Feedback) -> list[dict[str, Any]]:
    """The judgements that were frozen. Raises DataError on a line that this version cannot read."""
    from trueup.feedback.judgement import from_row
    from trueup.run.artifacts import read_jsonl

    path = frozen.path / "annotations.jsonl"
    lines = list(read_jsonl(path))
    for number, line in enumerate(lines, start=1):
        try:
            from_row(line)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}:{number}",
                found=f"no judgement: {error}",
                expected="the file as trueup wrote it",
                next_step="trueup collect RUN.yaml --rebuild, or restore the file",
            ) from None
    return lines


def _pulled(pipeline: Pipeline) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what people said of questions, of gold and repetitions) as far as it was pulled, without adjudications."""
    from trueup.feedback.checks import set_apart
    from trueup.feedback.store import Store

    if not (pipeline.folder / "store").is_dir():
        return [], []
    store = Store(pipeline.folder / "store")
    keys = store.keys_of_adjudication()
    return set_apart((row for row in store.latest() if row["project"] not in keys), store.asked())


def _and_more(found: list[str]) -> str:
    return f" and {len(found) - 5:,} more" if len(found) > 5 else ""


def _broken(pipeline: Pipeline) -> list[str]:
    """The lines of the store that cannot be read, of Label Studio and of use."""
    from trueup.feedback.store import Store
    from trueup.feedback.use import Use

    if not (pipeline.folder / "store").is_dir():
        return []
    store, used = Store(pipeline.folder / "store"), Use(pipeline.folder / "store")
    return [
        *store.broken(),
        *([f"lines of {used.path.name}, {number:,} of them"] if (number := used.said()[1]) else []),
    ]


def _checks(pipeline: Pipeline) -> list[dict[str, Any]]:
    """What was said of gold questions and repetitions: as it was frozen, or, before that, as far as it was pulled."""
    from trueup.feedback.freezing import CHECKS
    from trueup.run.artifacts import Feedback, read_jsonl

    frozen = Feedback(pipeline.path("collect"))
    if not frozen.is_there():
        return _pulled(pipeline)[1]
    return list(read_jsonl(frozen.path / CHECKS)) if (frozen.path / CHECKS).exists() else []


def _of_split(frozen: Feedback, kind: str, split: str) -> list[dict[str, Any]]:
    names = ("train", "held_out") if split == "all" else (split,)
    read = frozen.pairs if kind == "pairs" else frozen.rows
    return [row for name in names for row in read(name)]


def _refuse_place(out: Path, form: str) -> None:
    """Raises ConfigError where the file cannot be written, or its name says something else than `form`."""
    if out == STANDARD_OUTPUT:
        taken = "--json writes its document there" if DOCUMENT in click.get_current_context().meta else ""
        if why := taken or ("Parquet is no text" if form == "parquet" else ""):
            cure = f"--out labels{'.parquet' if form == 'parquet' else '.jsonl'}"
            raise ConfigError("--out -", found=f"standard output, and {why}", expected="a new file", next_step=cure)
        return
    wanted = ".parquet" if form == "parquet" else ".jsonl"
    allowed = {".parquet", ".jsonl"} if form.startswith("trl-") else {wanted}
    if out.suffix not in allowed:
        named = " or ".join(sorted(f"FILE{suffix}" for suffix in allowed))
        cure = f"--out {out.with_suffix(wanted) if out.name else 'labels' + wanted}"
        raise ConfigError(f"--out {out}", found="another kind of file", expected=named, next_step=cure)
    if out.exists():
        raise ConfigError(f"--out {out}", found="it is there already", expected="a new file", next_step="name another")
    if not out.parent.is_dir():
        raise ConfigError(
            f"--out {out}",
            found=f"there is no folder {out.parent}",
            expected="a file in a folder that exists",
            next_step=f"mkdir -p {out.parent}",
        )


def _write_parquet(out: Path, rows: list[dict[str, Any]]) -> None:
    """Written aside and renamed, as `write_jsonl` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trueup.run.files import rename, sync

    aside = out.with_name(out.name + ".tmp")
    try:
        pq.write_table(pa.Table.from_pylist(rows), aside)
        sync(aside)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    rename(aside, out)
