"""`trueup demo`: the whole loop on a 135M model, with a real Label Studio, from SFT to the verdict."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.run.stage import Waiting

if TYPE_CHECKING:
    from rich.console import Console

    from trueup.run.pipeline import Pipeline

TEXTS = ("demonstrations.jsonl", "prompts.jsonl", "held_out.jsonl")


def play(folder: Path, *, human: bool, seed: int, method: str, port: int) -> dict[str, Any]:
    """Run the demo in `folder`, going on where an earlier call stopped; return the summary it writes.

    Raises TrueupError as the stages do.
    """
    from rich.console import Console

    from trueup.demo import summary
    from trueup.report import writing
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load
    from trueup.stages import STAGES
    from trueup.training import curves

    console, began = Console(highlight=False), time.monotonic()
    run_file = _lay_out(folder)
    name = "demo" + ("" if seed == 0 else f"-seed{seed}") + ("" if method == "dpo" else f"-{method}")
    overrides = (f"name={name}", f"seed={seed}", f"method={method}", f"labelstudio.port={port}")
    run = load(run_file, {stage.name: stage.config for stage in STAGES}, overrides)
    pipeline = Pipeline(run, STAGES, folder / "runs", overrides)
    try:
        order = pipeline.order()
        for number, stage in enumerate(order, start=1):
            console.rule(f"{number}/{len(order)}  trueup {stage.name}", align="left", style="dim")
            if stage.name == "collect":
                _collect(pipeline, human, seed, console)
            else:
                pipeline.execute(stage.name)
        writing.write(pipeline, run_file.name, overrides)
        curves.write(pipeline.folder, name)
        found = summary.make(pipeline, simulated=not human, wall_s=time.monotonic() - began)
        summary.show(found, pipeline, console)
    finally:
        _stop(pipeline)
    return found


def judge(run_file: Path, *, overrides: tuple[str, ...] = (), seed: int = 0) -> None:
    """Let three SIMULATED annotators judge what `trueup collect` published of a run; a try-out, nobody's opinion.

    Raises TrueupError when its Label Studio is not running.
    """
    from rich.console import Console

    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load
    from trueup.stages import STAGES

    run = load(run_file, {stage.name: stage.config for stage in STAGES}, overrides)
    pipeline = Pipeline(run, STAGES, run_file.resolve().parent / "runs", overrides)
    _simulate(pipeline, seed, Console(highlight=False))


def copy_texts(folder: Path) -> Path:
    """The demo's texts in `folder`/demo_texts, where the user can change them; what is there stays."""
    texts = folder / "demo_texts"
    texts.mkdir(parents=True, exist_ok=True)
    for name in TEXTS:
        _copy(f"texts/{name}", texts / name)
    return texts


def _lay_out(folder: Path) -> Path:
    """The demo's run file and texts, where the user can read and change them."""
    copy_texts(folder)
    return _copy("run.yaml", folder / "demo.yaml")


def _copy(origin: str, target: Path) -> Path:
    if not target.exists():
        target.write_text(files("trueup.demo").joinpath(origin).read_text(encoding="utf-8"), encoding="utf-8")
    return target


def _collect(pipeline: Pipeline, human: bool, seed: int, console: Console) -> None:
    from trueup.feedback import server

    if human:
        settings = pipeline.run.labelstudio
        server.start(settings.data_dir, settings.port)
        known = server.login(settings.data_dir)
        console.print(f"Label Studio: {known['url']}\nlog in as {known['email']} with {known['password']}")
        console.print("Judge with the mouse or by the keys that the screen shows; Ctrl+Enter submits.")
        console.print(
            "The demo goes on when all are judged; for fewer, set collect.min_labelled_fraction in demo.yaml before. "
            "Ctrl+C and the same command go on."
        )
        pipeline.execute("collect")
        return
    patient = pipeline.run.labelstudio
    hurried = pipeline.run.model_copy(update={"labelstudio": patient.model_copy(update={"wait": False})})
    publishing = pipeline.with_run(hurried)
    try:
        publishing.execute("collect")
    except Waiting as waiting:
        console.print(f"published; {waiting.labelled} of {waiting.wanted} judged so far")
        _simulate(pipeline, seed, console)
        publishing.execute("collect")


def _simulate(pipeline: Pipeline, seed: int, console: Console) -> None:
    from trueup.demo import simulate
    from trueup.feedback.connection import connect
    from trueup.feedback.project import Project
    from trueup.feedback.screens import read_guidelines, version
    from trueup.progress import bars

    settings, chosen = pipeline.run.labelstudio, pipeline.run.section("collect").model_dump()
    interface, told = str(chosen["interface"]), read_guidelines(chosen["guidelines"], pipeline.run_file_dir)
    admin, project = connect(settings.data_dir), Project(settings, pipeline.folder / "store", interface)
    console.print("three SIMULATED annotators sign up and judge over HTTP (people: trueup demo --human)")
    tasks = project.client.pull(project.known[0]) if project.known else []
    with bars("collect") as bar:
        progress = bar.add_task("simulated judgements", total=simulate.num_votes(tasks))
        hired = simulate.hire(admin, seed, interface, version(told))
        simulate.note(pipeline.folder / "store", hired)
        simulate.vote(hired, tasks, lambda done: bar.advance(progress, done))


def _stop(pipeline: Pipeline) -> None:
    from trueup.feedback import server

    server.stop(pipeline.run.labelstudio.data_dir)
