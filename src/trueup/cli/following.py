"""Which command goes on: what every command of a run ends with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from trueup.cli.options import open_run, typed

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline, State


def following(pipeline: Pipeline, run_file: Path, states: list[State]) -> str:
    """The command that goes on. What a stage was built with and the run file lacks is kept, not built over."""
    forgotten = tuple(dict.fromkeys(override for state in states for override in state.remembered))
    if forgotten:
        remembering = open_run(run_file, (*forgotten, *pipeline.overrides))
        again = remembering.states()
        if not any(state.remembered for state in again):
            said = " and ".join(f"--set {shlex.quote(override)}" for override in forgotten)
            was, it = ("was", "it") if len(forgotten) == 1 else ("were", "them")
            note = f"{said} {was} typed when this was built: write {it} into {run_file.name}, or keep typing {it}\n"
            return note + _command(remembering, run_file, again)
    return _command(pipeline, run_file, states)


def _command(pipeline: Pipeline, run_file: Path, states: list[State]) -> str:
    from trueup.run.goal import NOT_MET

    todo = next((state for state in states if state.state != "complete"), None)
    if todo is None and any(line.endswith(NOT_MET) for line in pipeline.verdict_lines(states)):
        kept = tuple(one for one in pipeline.overrides if one.partition("=")[0] not in ("round", "variant"))
        return (
            "all is complete, and the goal is not met: docs/choosing.md says what else there is\n"
            f"next: for another round of judgements: trueup next-round {typed(run_file, kept)}"
        )
    if todo is None:
        return "next: nothing, all is complete"
    if todo.state == "running":
        return f"next: wait for {todo.stage}, or stop it with Ctrl+C where it runs; the same command goes on"
    rebuild = " --rebuild" if todo.state in ("stale", "broken") else ""
    return f"next: trueup {todo.stage} {typed(run_file, pipeline.overrides, todo.stage)}{rebuild}"
