"""What labels teach: noise, single thumbs, what to label next, what a vote buys. CSV, pictures, and JSON last.

The votes, answers and SFT policies are those of finished runs of the demo; the truth is the hidden preference of its
simulated annotators, on answers to held-out prompts. `features` keeps the last hidden state of the SFT policy at each
answer's end; `noise`, `votes` and `selection` compare ways to train a linear head on these; `lora` trains the real
reward model. `caches` keeps the states of all answers under the first run's SFT policy, and its answers to the held-out
prompts; `tasks` says how the tasks differ; `budgets` trains rewards by the number of votes, ours and raw TRL's. Each
part goes on where it stopped, and ends early, to be started again, after --limit-s.

    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part features
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part noise
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part votes
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part selection
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part lora
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part caches
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part tasks
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part budgets
    python benchmarks/labels.py OUT --runs DEMO [DEMO ...] --part tables
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from label_parts import budgets, curves, features, lora, material, noise, policies, selection, spread, tables, votes

SEEDS = range(5)
PARTS = ("features", "noise", "votes", "selection", "lora", "caches", "tasks", "budgets", "policies", "best", "tables")
Job = tuple[str, Callable[[], Any]]  # (its key, what makes its row or rows)


def jobs(part: str, out: Path, runs: list[Path]) -> Iterator[Job]:
    """What a part consists of, each piece a few minutes at most."""
    caches = [out / "features" / f"{number}.safetensors" for number in range(len(runs))]

    def rows(number: int) -> list[features.Row]:
        others = [run for run in runs if run != runs[number]]
        return features.rows_of(runs[number], others, with_theirs=number == 0)

    def answers(number: int) -> features.Answers:
        return features.load(rows(number), caches[number])

    several = {"caches": budgets.caches, "budgets": budgets.jobs, "policies": policies.jobs, "best": policies.best_jobs}
    if part in several:
        yield from several[part](out, runs)
    elif part == "tasks":
        yield "tasks", lambda: spread.rows(out, runs)
    elif part == "noise":
        for mood in (noise.MOOD, 0.0):
            for seed in SEEDS:
                yield f"{seed} {mood}", lambda seed=seed, mood=mood: noise.run(answers(0), seed, mood)
    elif part == "selection":
        for seed in SEEDS:
            yield f"{seed}", lambda seed=seed: selection.run(answers(0), seed)
    elif part == "votes":
        for draw in range(3):
            for number, run in enumerate(runs):
                yield f"{run} {draw}", lambda number=number, run=run, draw=draw: votes.run(answers(number), run, draw)
    elif part == "lora":
        for number, run in enumerate(runs):
            for case in lora.CASES:
                apart = out / "lora" / f"{number} {case}"
                held_out = [row for row in rows(number) if row["held_out"]]
                yield (
                    f"{run} {case}",
                    lambda run=run, case=case, held_out=held_out, apart=apart: [lora.run(run, case, held_out, apart)],
                )
    else:
        for number, run in enumerate(runs):
            yield str(run), lambda number=number, run=run: features.compute(run, rows(number), caches[number], 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of finished `trueup demo`s")
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--only", default="", help="the pieces whose name this regular expression is found in")
    parser.add_argument("--limit-s", type=float, default=400, help="begin no further piece after so many seconds")
    asked = parser.parse_args()
    runs = [features.finished(run) for run in asked.runs]
    if asked.part == "tables":

        def right(task: str, said: np.ndarray) -> float:
            return budgets.accuracy(material.of(task, asked.out, tuple(runs)), said)

        print(json.dumps(tables.write(asked.out) | {"budgets": curves.write(asked.out, right)}))
        return
    began, kept = time.monotonic(), asked.out / f"{asked.part}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["key"] for line in kept.read_text().splitlines()} if kept.exists() else set()
    for key, make in jobs(asked.part, asked.out, runs):
        if key in done or not re.search(asked.only, key):
            continue
        if time.monotonic() - began > asked.limit_s:
            sys.exit("not done: the same command goes on")
        if found := make():
            with kept.open("a") as file:
                file.write(json.dumps({"key": key, "rows": found}) + "\n")
            print(json.dumps(found)[:400], flush=True)
    print(json.dumps({"part": asked.part, "done": True}))


if __name__ == "__main__":
    main()
