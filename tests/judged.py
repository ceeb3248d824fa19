"""A run with judgements: prompts with one, two and three pairs, disputed thumbs, unequal lengths, both splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import WORDS, copy_of, open_run

from trueup.run.pipeline import Pipeline

LONGER = ("", " tent", " tent boot rope")


def judged_pairs(num_prompts: int = 10) -> list[dict[str, str]]:
    """`yes ...` over `no ...`: the n-th prompt has 1 + n % 3 pairs."""
    pairs = []
    for n in range(num_prompts):
        asked = f"{WORDS[n]}{' boot' * (n % 4)} rope"
        for k in range(1 + n % 3):
            pairs.append({"prompt": asked, "chosen": f"yes {WORDS[k]}{LONGER[k]}", "rejected": f"no{LONGER[2 - k]}"})
    return pairs


def judged_thumbs() -> list[dict[str, object]]:
    """Thumbs on prompts without pairs: two down on one, and on another a text that one in three dislikes."""
    rows: list[dict[str, object]] = []
    for word in WORDS[:3]:
        rows += [{"prompt": f"{word} sorry", "completion": text, "label": False} for text in ("no boot", "no")]
        agreed = [{"prompt": f"{word} glad", "completion": "yes rope", "label": up} for up in (True, True, False)]
        rows += agreed
    return rows


def judge(pipeline: Pipeline, folder: Path, pairs: list[dict[str, str]], thumbs: list[dict[str, object]]) -> Pipeline:
    """A copy of the tiny run in `folder` after `collect` of what the user judged."""
    copy_of(pipeline, folder)
    sources = {name: rows for name, rows in (("pairs", pairs), ("thumbs", thumbs)) if rows}
    for name, rows in sources.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ", ".join(f"{name}.jsonl" for name in sources)
    text = (folder / "run.yaml").read_text().replace("data: {", f"data: {{preferences: [{names}], ")
    (folder / "run.yaml").write_text(text + "collect: {held_out_fraction: 0.3}\n")
    made = open_run(folder)
    made.execute("collect")
    return made


def by_two(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The frozen rows of single judgements as those of two people, a and b, who each like some answers and not others.

    Of the rows of each split that are no side of a comparison, those up and those down go to both in turn.
    """
    turns: dict[tuple[Any, ...], int] = {}
    found = []
    for row in rows:
        key = (row["split"], row["label"], row["kind"] == "comparison")
        turns[key] = turns.get(key, 0) + 1
        found.append(row | {"annotator": "ab"[turns[key] % 2]})
    return found
