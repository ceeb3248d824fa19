"""`trueup next-round`: another round of judgements on the run's last winner; `trueup lineage`: what came of what."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from trueup.cli.building import play
from trueup.cli.document import tell, with_json
from trueup.cli.options import DEVICE, RUN_FILE, SET, open_run, typed
from trueup.errors import StageError
from trueup.run.artifacts import Report


@click.command("next-round")
@RUN_FILE
@SET
@DEVICE
@with_json
def next_round(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Sample from the winner, judge, align and evaluate again.

    Begins the round after the last one that was evaluated, or goes on with the one that was begun.
    """
    pipeline = open_run(run_file, overrides)
    number = _number(pipeline.folder)
    if number is None:
        raise StageError(
            str(pipeline.folder),
            found="round 1 is not evaluated yet",
            expected="a winner that round 2 can start from",
            next_step=f"trueup run {typed(run_file, overrides)}",
        )
    click.echo(f"round {number}, from {pipeline.in_round(number).winner(number - 1)} of round {number - 1}", err=True)
    play(open_run(run_file, (*overrides, f"round={number}")), run_file)


def _number(run_dir: Path) -> int | None:
    """The round that was begun last, or the next one where that is evaluated; None in the first round."""
    begun = [int(path.name[6:]) for path in run_dir.glob("round-*") if path.name[6:].isdecimal()]
    last = max(begun, default=1)
    evaluated = any(
        Report(path).is_there()
        for path in (run_dir / f"round-{last}").glob("evaluate*")
        if ".old-" not in path.name and not path.name.endswith(".partial")
    )
    number = last + evaluated
    return number if number > 1 else None


@click.command()
@RUN_FILE
@click.argument("what", required=False, metavar="[STAGE]")
@SET
@click.option("--person", metavar="ID", help="What this person's judgements went into, by the annotator's id.")
@with_json
def lineage(run_file: Path, what: str | None, overrides: tuple[str, ...], person: str | None) -> None:
    """Trace an adapter to its labels, or a person to the adapters.

    STAGE is a folder of the run, such as dpo, round-2/kto or export; by default the last one that is complete.
    """
    from trueup.run.lineage import Family, described

    if person is not None and what is not None:
        raise click.UsageError("STAGE and --person ask two questions: give one of them")
    pipeline = open_run(run_file, overrides)
    family = Family(pipeline.folder)
    members = family.of_person(person) if person is not None else family.ancestors(family.find(what))
    for line in described(members, person):
        click.echo(line)
    tell(run=pipeline.run.name, person=person, stages=[asdict(member) for member in members])
