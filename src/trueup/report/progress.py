"""What is not there yet, and the command that makes it."""

from __future__ import annotations

from trueup.page import Page
from trueup.report.gathered import Gathered
from trueup.run import naming

DONE = "complete"


def add(page: Page, gathered: Gathered, run_file: str) -> None:
    """Every stage of the last round that is not complete, and every aligned model without a verdict."""
    rows = missing(gathered, run_file)
    if not rows and not gathered.torn:
        return
    page.heading("What is missing")
    if gathered.torn:
        page.text(f"These records cannot be read, so that nothing of them is shown: {', '.join(gathered.torn)}.")
    page.table(["stage", "state", "what makes it"], rows)
    if (gathered.folder / "trueup.log").is_file():
        page.text("trueup.log in the folder of the run has the traceback of the last fault.")


def missing(gathered: Gathered, run_file: str) -> list[tuple[str, str, str]]:
    """(stage, its state and why, the command) of what is not complete and up to date.

    `run_file` is the run file with its overrides, as a shell reads them.
    """
    several = len(gathered.rounds) > 1
    here = gathered.pipeline.in_round(gathered.rounds[-1])
    there = {one.stage for one in gathered.stages if one.round == here.run.round}  # of whatever variant
    variant = _variant(gathered, here.run.round)
    rows = []
    for state in here.states():
        if state.state != DONE and not (state.state == "missing" and state.stage in there):
            name = naming.folder_of(state.stage, variant if here.varies(here.stages[state.stage]) else "")
            again = " --rebuild" * (state.state in ("stale", "broken"))
            command = gathered.pipeline.command(name, here.run.round, again)
            of_round = f", round {here.run.round}" if several and not here.stages[state.stage].per_run else ""
            why = f"{state.state}: {state.why}" if state.why else state.state
            if state.state == "running":
                why, command = "running when this page was written", "trueup report RUN.yaml, once it is done"
            rows.append((f"{state.stage}{of_round}", why, command))
    known = {row[0] for row in rows}
    for one in gathered.aligned:
        evaluation = naming.folder_of("evaluate", one.built.variant)
        title = f"{evaluation}, round {one.built.round}" if several else evaluation
        if one.evaluation is None and title not in known:
            method = "" if one.built.variant or one.built.stage == gathered.run.method else one.built.stage
            chosen = f" --set method={method}" * bool(method)
            command = gathered.pipeline.command(evaluation, one.built.round, chosen)
            rows.append((title, f"{one.built.title} was not evaluated since it was built", command))
    return [(stage, why, command.replace("RUN.yaml", run_file)) for stage, why, command in rows]


def _variant(gathered: Gathered, number: int) -> str:
    """The variant that goes on where the run file's own method was not built in this round: the winner's."""
    own = {one.built.name for one in gathered.aligned if one.built.round == number}
    return naming.split(gathered.pipeline.winner(number))[1] if own and gathered.run.method not in own else ""
