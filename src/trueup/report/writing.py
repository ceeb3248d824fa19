"""`trueup report`: the page and the CSV files of a run, beside one another in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from trueup.errors import StageError, TrueupError
from trueup.page import Page
from trueup.report import answers, asked, compared, costs, judging, people, progress, rows, variants, verdict
from trueup.report.gathered import Gathered
from trueup.run.pipeline import Pipeline
from trueup.training import curves

PAGE = "report.html"
CONTESTANTS, STAGES = "report-contestants.csv", "report-stages.csv"
MOST_OPEN = 8  # training stages whose curves are shown; of more, each stage's are folded
Made = TypeVar("Made")
BESIDES = ("grad_norm", "learning_rate", "tokens_per_s", "clip_fraction", "explained_variance")  # in curves.html


@dataclass(frozen=True)
class Written:
    """Where the report is. `not_shown` are the parts that the run's records lack, in words."""

    page: Path
    tables: tuple[Path, ...]
    not_shown: tuple[str, ...]


def write(pipeline: Pipeline, run_file: str = "RUN.yaml", overrides: tuple[str, ...] = ()) -> Written:
    """Write the report of all rounds and variants of a run into its folder.

    `run_file` and `overrides` are what commands on the page name. Raises StageError where no stage is complete.
    """
    gathered = Gathered(pipeline)
    if not gathered.stages:
        raise StageError(
            str(pipeline.folder),
            found="no stage is complete" + (f"; torn: {', '.join(gathered.torn)}" if gathered.torn else ""),
            expected="a stage to report on",
            next_step="trueup status RUN.yaml says what to build",
        )
    name = shlex.quote(run_file)
    typed = " ".join([name, *(f"--set {shlex.quote(override)}" for override in overrides)])
    page = Page(f"{pipeline.run.name}: what came of it")
    parts: list[tuple[str, Callable[[], None]]] = [
        ("", lambda: verdict.add(page, gathered)),
        ("", lambda: progress.add(page, gathered, typed)),
        ("", lambda: _contents(page)),
        ("What was compared", lambda: compared.add(page, gathered)),
        ("Who judged", lambda: judging.add(page, gathered)),
        ("Answers side by side", lambda: answers.add(page, gathered)),
        ("Rounds and variants", lambda: variants.add(page, gathered, typed)),
        ("What was asked", lambda: asked.add(page, gathered)),
        ("The data", lambda: asked.add_data(page, gathered)),
        ("People", lambda: people.add(page, gathered)),
        ("Training, step by step", lambda: _curves(page, gathered)),
        ("What it took", lambda: costs.add(page, gathered)),
        ("What it is made of", lambda: costs.add_lineage(page, gathered, name)),
    ]
    compares = ("What was compared", "Who judged", "Answers side by side")
    shown = [part for part in parts if gathered.headline is not None or part[0] not in compares]
    lacking = [line for title, part in shown if (line := _part(page, title, part))]
    tables = []
    for file, make in ((CONTESTANTS, rows.contestants), (STAGES, rows.stages)):
        made, said = _tried(file, partial(make, gathered))
        lacking += [said] if said else []
        if made:
            tables.append(rows.write(pipeline.folder / file, made))
        else:
            (pipeline.folder / file).unlink(missing_ok=True)  # that of an earlier report would be of other stages
    return Written(page.write(pipeline.folder / PAGE), tuple(tables), tuple(lacking))


def _part(page: Page, title: str, add: Callable[[], None]) -> str:
    """Add a part of the page; what a record of another version lacks is said in its place, and returned."""
    if title:
        page.heading(title)
    length = page.length()
    _, said = _tried(title or "The verdict", add)
    if said:
        page.cut(length).text(said)
    return said


def _tried(what: str, make: Callable[[], Made]) -> tuple[Made | None, str]:
    """(what `make` returns, why it cannot): records may be of another version, or edited."""
    try:
        return make(), ""
    except TrueupError as error:
        return None, f"{what} is not shown: {error.where}: {error.found}."
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        why = f"a record of this run is not as trueup writes it ({type(error).__name__}: {error})"
        return None, f"{what} is not shown: {why}."


def _contents(page: Page) -> None:
    page.contents()


def _curves(page: Page, gathered: Gathered) -> None:
    found = curves.rows_of_stages(gathered.folder)
    if not found:
        page.text(
            "No training stage has logged a step: none has trained yet, or those that did were of an earlier version."
        )
        return
    for title, logged in found.items():
        with page.folded(title) if len(found) > MOST_OPEN else nullcontext(page.heading(title, 3)):
            said = [(row["step"], sentence) for row in logged for sentence in row.get("warnings", ())]
            if said:
                page.table(("step", "what is off"), said)
            page.plots(curves.plots(logged, BESIDES))
    page.text("curves.html beside this page has gradients, learning rates and speeds as well.")
