"""`trueup ship`: SHIP, DON'T SHIP or ASK MORE, with the reasons, for people and for CI."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup.cli.document import tell, with_json
from trueup.cli.options import AS, RUN_FILE, SET, open_run
from trueup.errors import StageError

if TYPE_CHECKING:
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
    from trueup.run.artifacts import read_jsonl

    pipeline = open_run(run_file, overrides)
    folder = _evaluated(pipeline)
    metrics = pipeline.stages["evaluate"].makes(folder).record()["metrics"]
    answers = list(read_jsonl(folder / "answers.jsonl"))
    limits = Limits(length_growth=max_length_growth, more_refusals=max_more_refusals)
    found = shipping.checks(metrics, answers, pipeline.run.goal.model_dump(), limits)
    decision = shipping.decide(found)
    table = Table("check", "", "found", show_lines=False)
    for check in found:
        table.add_row(Text(check.name), Text(check.outcome, MARKS[check.outcome]), Text(check.says))
    console = Console()
    console.print(table)
    needed = max((check.num_needed or 0 for check in found), default=0)
    more = f": judge about {needed:,} held-out prompts" if decision == "ASK MORE" and needed else ""
    console.print(Text(f"{decision}{more}"), soft_wrap=True)
    tell(
        run=pipeline.run.name,
        round=pipeline.run.round,
        decision=decision,
        num_prompts_needed=needed or None,
        checks=[asdict(check) for check in found],
    )
    sys.exit(EXIT_CODES[decision])


def _evaluated(pipeline: Pipeline) -> Path:
    """The folder of the evaluation. Raises StageError unless it is complete and up to date."""
    state = next(state for state in pipeline.states() if state.stage == "evaluate")
    if state.state != "complete":
        again = " --rebuild" * (state.state in ("stale", "broken"))
        raise StageError(
            "ship",
            found=f"evaluate is {state.state}" + (f": {state.why}" if state.why else ""),
            expected="an evaluation of what would be shipped",
            next_step=f"trueup evaluate RUN.yaml{again}",
        )
    return pipeline.path("evaluate")
