"""`trueup advise`: what the judgements so far are good for, and what more of them would be."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from trueup.cli.document import tell, with_json
from trueup.cli.labels import judged_so_far
from trueup.cli.options import RUN_FILE, SET, open_run, typed
from trueup.errors import TrueupError

WIDTH = 80


@click.command()
@RUN_FILE
@SET
@with_json
def advise(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Which method fits the judgements; how many more a goal needs.

    Plain rules on what was counted, each with its reason, its assumption and its source.
    """
    from trueup.feedback import advice
    from trueup.feedback.facts import facts_of
    from trueup.feedback.judgement import from_row

    pipeline = open_run(run_file, overrides)
    lines, completions, state = judged_so_far(pipeline, typed(run_file, overrides))
    judgements = [one for line in lines for one in from_row(line)]
    evaluated = _metrics(pipeline, "evaluate")
    facts = facts_of(
        judgements,
        completions,
        wanted=pipeline.run.goal.win_rate,
        num_held_out=_num_held_out(pipeline),
        reward=_metrics(pipeline, "reward").get("held_out_accuracy_by_prompt"),
        win=(evaluated.get("win_rates_over") or {}).get("sft"),
    )
    found = advice.advise(facts)
    counted = ", ".join(f"{number:,} {kind}s" for kind, number in facts.num_judgements.items())
    head = f"{pipeline.run.name}, round {pipeline.run.round}: {counted} on {facts.num_prompts:,} prompts, {state}"
    click.echo(textwrap.fill(head, WIDTH))
    for one in found:
        click.echo()
        click.echo(textwrap.fill(one.says, WIDTH))
        source = f" [{one.source}]" if one.source else ""
        indent = {"initial_indent": "  ", "subsequent_indent": "  "}
        click.echo(textwrap.fill(one.because + source, WIDTH, **indent))  # type: ignore[arg-type]
    tell(state=state, **advice.as_json(facts, found))


def _metrics(pipeline: Any, stage: str) -> dict[str, Any]:
    """The metrics of a complete stage; nothing of one that is not there."""
    from trueup.run.artifacts import Artifact

    artifact = Artifact(pipeline.path(stage))
    found: dict[str, Any] = artifact.record().get("metrics", {}) if artifact.is_there() else {}
    return found


def _num_held_out(pipeline: Any) -> int | None:
    """The prompts that evaluate compares on; None where the file is not named, or cannot be read."""
    from trueup.data import read_prompts

    try:
        return len(read_prompts(pipeline.run.data, "held_out"))
    except TrueupError:
        return None
