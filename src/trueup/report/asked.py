"""What was asked of whom: the models, the prompts, the guidelines, and how much of the data was read and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.errors import TrueupError
from trueup.feedback.screens import read_guidelines, version
from trueup.page import Page
from trueup.report import words
from trueup.report.gathered import Built, Gathered, evenly

Row = dict[str, Any]
NUM_PROMPTS = 8


def add(page: Page, gathered: Gathered) -> None:
    """The base, the methods, the system prompt and the guidelines; some prompts of each kind, folded."""
    methods = ", ".join(dict.fromkeys(one.built.stage for one in gathered.aligned))
    aligned = f"it was aligned by {methods}" if methods else f"the method is {gathered.run.method}, not built yet"
    first = gathered.stages[0].record
    base = (first.get("base") or {}).get("name") or gathered.run.model.base
    if Path(base).is_relative_to(gathered.pipeline.run_file_dir):  # where it is on this machine is nobody's concern
        base = str(Path(base).relative_to(gathered.pipeline.run_file_dir))
    adapter = first.get("adapter") or {}
    page.text(
        f"The base model is {base}, with {adapter.get('kind', gathered.run.adapter.kind)} adapters of rank "
        f"{adapter.get('r', gathered.run.adapter.r)}; {aligned}."
    )
    system = next((one.record["system"] for one in gathered.stages if one.record.get("system")), None)
    if system is None:
        page.text("No system message was set: each conversation began with its own, or with the user's.")
    else:
        page.text("Every conversation that has none of its own began with this system message:").quote(system)
    shots: list[Row] = next((one.record["few_shot"] for one in gathered.stages if one.record.get("few_shot")), [])
    if shots:
        with page.folded(f"{words.counted(len(shots), 'example')} put before each conversation"):
            for shot in shots:
                page.answers(shot["prompt"], "example", [("answer", shot["response"])])
    _guidelines(page, gathered)
    for title, texts in _prompts(gathered):
        shown = evenly(texts, NUM_PROMPTS)
        with page.folded(f"{len(shown)} of {words.counted(len(texts), title)}, evenly spaced"):
            for text in shown:
                page.quote(text)


def _guidelines(page: Page, gathered: Gathered) -> None:
    """The text on the screen, where it is still the one that people saw."""
    collected = gathered.of("collect")
    if not collected or "num_judged" in collected[-1].metrics:
        return
    try:
        text = read_guidelines(
            gathered.run.section("collect").model_dump()["guidelines"], gathered.pipeline.run_file_dir
        )
    except TrueupError as error:
        page.text(f"The guidelines cannot be read now: {error.where}: {error.found}.")
        return
    then = collected[-1].metrics.get("guidelines")
    if not text:
        known = "People were given no guidelines." if not then else "The guidelines that people had are in no file now."
        page.text(known)
        return
    changed = then is not None and then != version(text)
    page.text(
        "The guidelines as they are now; people judged under others:" if changed else "People's guidelines:"
    ).quote(text)


def _prompts(gathered: Gathered) -> list[tuple[str, list[str]]]:
    """(what they are, the last turn of each), each prompt once."""
    found = []
    if sampled := gathered.of("sample"):
        found.append(("prompt", sampled[-1].rows("completions.jsonl")))
    headline = gathered.headline
    if headline is not None and headline.evaluation is not None:
        found.append(("held-out prompt", headline.evaluation.rows("answers.jsonl")))
    return [
        (title, list({row.get("prompt_id"): row["messages"][-1]["content"] for row in rows}.values()))
        for title, rows in found
    ]


def add_data(page: Page, gathered: Gathered) -> None:
    """What was read of each file, what was not used, and what was cut or dropped before training, with the reasons."""
    rows, notes, trained = [], [], []
    for one in gathered.stages:
        for field, counts in (one.metrics.get("data") or {}).items():
            if field == "held_out_prompts_shared":
                notes += [f"{name}: {n:,} held-out prompts are in it as well" for name, n in counts.items() if n]
            else:
                rows.append([one.title, field, _files(one, field), counts["num_rows"], counts["num_used"]])
                notes += [f"{field}: {line}" for line in _not_read(counts)]
        if "num_samples" in (checked := one.metrics.get("preflight") or {}):
            unfinished = checked.get("num_unfinished")
            samples = [checked["num_samples"], checked.get("num_cut"), checked.get("num_dropped"), unfinished]
            trained.append([one.title, *samples])
            notes += [f"{one.title}: {line}" for line in checked.get("warnings", ())]
    if rows:
        page.table(["stage", "data", "file", "rows", "used"], rows, "What was read")
    else:
        page.text("The records of this run do not say what was read of the files.")
    if trained:
        page.table(
            ["stage", "samples", "cut at the maximum length", "dropped", "without an end"],
            trained,
            "What each stage learned from or sampled",
        )
    page.bullets(list(dict.fromkeys(notes)))


def _files(one: Built, field: str) -> str:
    sources = (one.record.get("data") or {}).get(field)
    if not isinstance(sources, dict):  # of an earlier version: a digest alone
        return "not recorded"
    return ", ".join(source["path"] for source in sources.get("sources", ())) or "none"


def _not_read(counts: Row) -> list[str]:
    """What was not used of a file, and why, as `trueup.data.report` counts it."""
    lines = [str(line) for line in counts.get("shares", ())]
    lines += [f"field not used: {name}, in {n:,} rows" for name, n in counts.get("unused_fields", {}).items()]
    lines += [f"left out, {why}: {n:,} rows" for why, n in counts.get("left_out", {}).items()]
    lines += [f"{what}: {n:,}" for what, n in counts.get("notes", {}).items()]
    lines += [f"file not read: {name}" for name in counts.get("files_not_read", ())]
    if turns := counts.get("num_untrained_turns"):
        lines.append(f"{turns:,} earlier turns of the assistant were not trained on (data.train_on: last)")
    return lines
