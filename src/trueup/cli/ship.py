"""`trueup ship`: SHIP, DON'T SHIP or ASK MORE, with the reasons, for people and for CI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup.cli.document import tell, with_json
from trueup.cli.group import filled
from trueup.cli.options import AS, RUN_FILE, SET, open_run
from trueup.errors import StageError

if TYPE_CHECKING:
    from trueup.evaluation.regressions import Check, Limits
    from trueup.run.pipeline import Pipeline

EXIT_CODES = {"SHIP": 0, "DON'T SHIP": 4, "ASK MORE": 5}
MARKS = {"passed": "green", "failed": "red", "undecided": "yellow", "not checked": "dim"}


@click.command()
@RUN_FILE
@SET
@AS
@click.option(
    "--max-length-growth",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="By how much answers may be longer than SFT's: 0.5 is half as long again.",
)
@click.option(
    "--max-more-refusals",
    type=click.FloatRange(min=0, max=1),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="By how much more of the answers may refuse than SFT's: 0.05 is five in a hundred.",
)
@with_json
def ship(run_file: Path, overrides: tuple[str, ...], max_length_growth: float, max_more_refusals: float) -> None:
    """Decide by the evaluation: SHIP, DON'T SHIP, or ASK MORE.

    Exits with 0, 4 or 5. Builds nothing.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trueup.evaluation import shipping
    from trueup.evaluation.regressions import Limits

    pipeline = open_run(run_file, overrides)
    limits = Limits(length_growth=max_length_growth, more_refusals=max_more_refusals)
    found = _checks(_evaluated(pipeline), pipeline, limits)
    decision = shipping.decide(found)
    table = Table("check", "", "found", show_lines=False)
    for check in found:
        table.add_row(Text(check.name), Text(check.outcome, MARKS[check.outcome]), Text(check.says))
    console = Console()
    console.print(table)
    needed = max((check.num_needed or 0 for check in found), default=0)
    console.print(Text(decision + _reasons(decision, found, needed)), soft_wrap=True)
    tell(
        run=pipeline.run.name,
        round=pipeline.run.round,
        decision=decision,
        num_prompts_needed=needed or None,
        checks=[asdict(check) for check in found],
    )
    sys.exit(EXIT_CODES[decision])


def _reasons(decision: str, found: Sequence[Check], needed: int) -> str:
    """Why, in a few words: which checks failed, or which are open, and how many prompts would tell."""
    wanted = {"SHIP": "passed", "DON'T SHIP": "failed", "ASK MORE": "undecided"}[decision]
    names = [check.name for check in found if check.outcome == wanted]
    open_still = [check.name for check in found if check.outcome == "not checked"]
    said = f": {len(names)} checks passed" if decision == "SHIP" else f": {', '.join(names)}"
    if decision == "ASK MORE" and needed:
        said += f"; judge about {needed:,} held-out prompts"
    return said + (f" (not checked: {', '.join(open_still)})" if open_still and decision != "DON'T SHIP" else "")


def _evaluated(pipeline: Pipeline) -> Path:
    """The folder of the evaluation. Raises StageError unless it is complete and up to date."""
    states = pipeline.states()
    state = next(state for state in states if state.stage == "evaluate")
    if state.state == "complete":
        return pipeline.path("evaluate")
    if not pipeline.folder.exists():
        others = sorted(path.parent.name for path in pipeline.folder.parent.glob("*/sft"))
        raise StageError(
            "ship",
            found=f"there is no run {pipeline.run.name} in {pipeline.folder.parent}",
            expected=f"one of {', '.join(others)}, by the run file's name" if others else "",
            next_step="trueup run RUN.yaml",
        )
    todo = next((one for one in states if one.state != "complete"), state)
    again = " --rebuild" * (todo.state in ("stale", "broken"))
    raise StageError(
        "ship",
        found=f"evaluate is {state.state}" + (f": {state.why}" if state.why else ""),
        expected=f"an evaluation of what would be shipped, in {pipeline.path('evaluate')}",
        next_step="wait until it is complete" if todo.state == "running" else f"trueup {todo.stage} RUN.yaml{again}",
    )


def _checks(folder: Path, pipeline: Pipeline, limits: Limits) -> list[Check]:
    """The checks of the evaluation in `folder`. Raises StageError when its record is not as evaluate wrote it."""
    from trueup.evaluation import shipping
    from trueup.run.artifacts import read_jsonl

    record = pipeline.stages["evaluate"].makes(folder).record()
    answers, goal = list(read_jsonl(folder / "answers.jsonl")), pipeline.run.goal.model_dump()
    try:
        found = shipping.checks(record.get("metrics", {}), answers, goal, limits)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise StageError(
            str(folder / "record.json"),
            found=f"its figures are not those of evaluate ({f'{type(error).__name__}: {error}'.rstrip(': ')})",
            expected="the record as trueup wrote it",
            next_step="restore the file, or: trueup evaluate RUN.yaml --rebuild",
        ) from None
    return [replace(check, says=filled(check.says)) for check in found]
