"""The answers that all simulated tasks share: what runs of the demo sampled, and SFT's answers to held-out prompts."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from label_parts import features
from label_parts.features import Row
from label_parts.sampled import answers_of

SAMPLES = 4  # of a policy to each held-out prompt
SFT = "sft"  # the name of SFT's own answers


def held_out_prompts(runs: list[Path]) -> list[Row]:
    """{prompt_id, messages} of the demo's held-out prompts, as the first run that evaluated kept them."""
    from trueup.run.artifacts import read_jsonl

    kept = next(path for run in runs if (path := run / "round-1/evaluate/answers.jsonl").exists())
    return [{name: row[name] for name in ("prompt_id", "messages")} for row in read_jsonl(kept)]


def rows_of(out: Path, runs: list[Path]) -> list[Row]:
    """Each distinct answer of the runs to training prompts, then SAMPLES of the first run's SFT to each held-out one.

    Rows as of `features.rows_of`, with a `prompt_id`, and a `unit`: the answers of one run to one prompt, which people
    see together. The answers to held-out prompts are all kept, equal ones too, in the order in which they were sampled.
    """
    from trueup.run.artifacts import read_jsonl

    asked = {
        row["uid"]: (f"{run}", row) for run in runs for row in read_jsonl(run / "round-1/sample/completions.jsonl")
    }
    rows = [row for row in features.rows_of(runs[0], runs[1:], with_theirs=True) if not row["held_out"]]
    for row in rows:
        run, sampled = asked[row["uid"]]
        row |= {"prompt_id": sampled["prompt_id"], "unit": f"{run} {sampled['prompt_id']}"}
    for number, row in enumerate(answers_of(out, SFT)):
        made = {name: row[name] for name in ("prompt_id", "messages", "completion")}
        made |= {"key": features.key_of(row["messages"], row["completion"]), "uid": f"held out {number}"}
        rows.append(made | {"prompt": row["messages"][-1]["content"], "unit": "", "held_out": True})
    return rows


def units(rows: list[Row], seed: int) -> list[list[Row]]:
    """The answers of training prompts by unit, in random order, each prompt once before any comes a second time."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row["held_out"]:
            found[row["unit"]].append(row)
    order = [found[name] for name in sorted(found)]
    draw.shuffle(order)
    times: dict[str, int] = defaultdict(int)
    turn = []
    for unit in order:
        turn.append(times[unit[0]["prompt_id"]])
        times[unit[0]["prompt_id"]] += 1
    return [order[i] for i in sorted(range(len(order)), key=lambda i: turn[i])]
