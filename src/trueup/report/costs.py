"""What the run took, stage by stage, and what it is made of: fingerprints, versions, commands that repeat it."""

from __future__ import annotations

import shlex
import time
from typing import Any

from trueup import __version__
from trueup.errors import TrueupError
from trueup.page import Page
from trueup.report import rows, words
from trueup.report.gathered import Built, Gathered
from trueup.run.lineage import Family, described

Row = dict[str, Any]
OF_FOLDER = ("round", "variant")  # overrides that the command says otherwise


def add(page: Page, gathered: Gathered) -> None:
    """Time, memory, tokens, and people's labels and minutes, of each stage and of all."""
    found = rows.stages(gathered)
    table: list[list[object]] = [
        [
            one.title,
            _of(row["wall_s"], words.minutes),
            _of(row["peak_rss_bytes"], _gigabytes),
            _of(row["peak_vram_bytes"], _gigabytes),
            row["sampled_tokens"],
            row["judgements"],
            _of(row["annotator_s"], words.minutes),
        ]
        for one, row in zip(gathered.stages, found, strict=True)
    ]
    peaks = {name: [row[name] for row in found if row[name]] for name in ("peak_rss_bytes", "peak_vram_bytes")}
    sums = {
        name: sum(row[name] or 0 for row in found) for name in ("wall_s", "sampled_tokens", "judgements", "annotator_s")
    }
    table.append(
        [
            "all",
            words.minutes(sums["wall_s"]),
            *(_gigabytes(max(some)) if some else None for some in peaks.values()),
            sums["sampled_tokens"],
            sums["judgements"],
            words.minutes(sums["annotator_s"]),
        ]
    )
    names = ["stage", "time", "peak memory", "peak GPU memory", "sampled tokens", "judgements", "people's time"]
    kept = [column for column in range(len(names)) if column != 3 or peaks["peak_vram_bytes"]]
    page.table([names[i] for i in kept], [[row[i] for i in kept] for row in table])
    page.text(
        "A stage that ran in the process of another shows the peak of both. People's time is what the screen measured; "
        "gold questions and repetitions are in it. Times of collect are those of the command alone."
    )


def _of(value: Any, words_of: Any) -> str | None:
    return None if value is None else str(words_of(value))


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.2f} GB"


def add_lineage(page: Page, gathered: Gathered, run_file: str) -> None:
    """What was made from what, the versions, the seed, and what to type for the same again."""
    try:
        page.bullets(described(list(Family(gathered.folder).members.values())))
    except TrueupError as error:
        page.text(f"What was made from what cannot be told: {error.where}: {error.found}.")
    stale = {one.title: of for one in gathered.stages if (of := one.record.get("stale_inputs"))}
    for title, of in stale.items():
        page.text(f"{title} was built on what was stale: {'; '.join(of)}.")
    versions = {tuple(sorted(one.record.get("versions", {}).items())): one.title for one in gathered.stages}
    for found, title in versions.items():
        if found:
            said = ", ".join(f"{name} {number}" for name, number in found)
            page.text(f"{said}{f' ({title})' if len(versions) > 1 else ''}.")
    seeds = sorted({str(one.record["seed"]) for one in gathered.stages if "seed" in one.record})
    if seeds:
        page.text(f"Seed: {', '.join(seeds)}.")
    page.text(f"This page was written by trueup {__version__}, {time.strftime('%Y-%m-%d %H:%M %Z')}.")
    page.heading("The same again", 3).text("With the same files, the run file, and people where trueup collect asks:")
    page.code("\n".join(command(one, run_file) for one in gathered.stages))


def command(one: Built, run_file: str) -> str:
    """What to type for a stage: its overrides are those that its record has."""
    overrides = [text for text in one.record.get("overrides", ()) if text.partition("=")[0] not in OF_FOLDER]
    if one.round > 1:
        overrides.append(f"round={one.round}")
    chosen = f" --as {shlex.quote(one.variant)}" * bool(one.variant)
    return f"trueup {one.stage} {run_file}{chosen}" + "".join(f" --set {shlex.quote(text)}" for text in overrides)
