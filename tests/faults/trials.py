"""Kill a stage at its file operations, or fill its disk; run it again, and compare with a run that was left alone.

    python tests/faults/trials.py FOLDER [--trials N] [--seed S] [--seconds T] [--plain] [STAGE...]

tries N faults of every stage, drawn by the seed from all its operations, and prints a table. Up to eight faults befall
one half-built stage, each in a new process that goes on from what the last one left; then it is left to end. The
processes are forks of one that has imported the libraries, or, with --plain, begin from nothing. What was tried is kept
in FOLDER/trials.jsonl: the same command goes on behind it, and the table counts all seeds. After T seconds no further
chain begins.
"""

import argparse
import json
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import shim
from built import STAGES, Built, Ended, Run, forked, full_disk_is_said, import_everything, plain

from trueup.run.files import append_jsonl, read_appended

SHARES = {"before": 1, "torn": 2, "after": 1, "full": 1}  # of the trials: how a process ends
HALVED = ("write", "save_file", "save", "copyfile")  # what can be torn
FILLS = (*HALVED, "mkdir")  # what needs space
IN_A_CHAIN = 8  # faults that befall one half-built stage
COLUMNS = ("killed", "torn", "torn_checkpoints", "full", "good", "wrong")


@dataclass(frozen=True)
class Fault:
    """How a process ends, at which operation of a stage: the `number`-th of its kind on this file."""

    how: str
    kind: str
    name: str
    number: int


def chains(every: Built, stage: str, count: int, seed: int) -> list[list[Fault]]:
    """`count` faults, in chains that each go through the stage from end to end.

    Each kind of file gets as many as another, however often it is written: a trainer's log would get most of them.
    """
    rng = random.Random(f"{stage} {seed}")
    places = list(enumerate(every.numbered(stage)))
    chosen: list[tuple[int, Fault]] = []
    for how, share in SHARES.items():
        fits = {"torn": HALVED, "full": FILLS}.get(how)
        fitting = [(at, Fault(how, *operation)) for at, operation in places if fits is None or operation[0] in fits]
        chosen += _drawn(fitting, count * share // sum(SHARES.values()), rng)
    chosen.sort(key=lambda at: at[0])
    num_chains = -(-len(chosen) // IN_A_CHAIN)
    return [[fault for _, fault in chosen[i::num_chains]] for i in range(num_chains)]


def _drawn(fitting: list[tuple[int, Fault]], count: int, rng: random.Random) -> list[tuple[int, Fault]]:
    """`count` faults in turn from each kind of operation and of file, both drawn at random."""
    kinds: dict[tuple[str, str], list[tuple[int, Fault]]] = {}
    for at in rng.sample(fitting, len(fitting)):
        kinds.setdefault((at[1].kind, re.sub(r"\d+", "N", at[1].name)), []).append(at)
    turns = zip_longest(*rng.sample(list(kinds.values()), len(kinds)))
    return [at for turn in turns for at in turn if at is not None][:count]


def last(every: Built, stage: str, how: str, kind: str, name: str) -> Fault:
    """The fault at the last operation of a kind on a file whose name ends so."""
    return Fault(how, *[at for at in every.numbered(stage) if at[0] == kind and at[1].endswith(name)][-1])


def in_a_fork(here: Path, stage: str, log: Path, faults: str) -> Ended:
    """As `plain`, in a fork of this process, whose libraries are watched."""
    return forked(here, stage, lambda: shim.begin(here / "runs", log, faults))


def chain(
    every: Built, stage: str, asked: Sequence[Fault], name: str = "chain", run: Run = plain
) -> tuple[list[str], list[str]]:
    """(the faults that befell the stage one after the other, what is wrong after it was run again)."""
    here, log = every.folder / name, every.folder / f"{name}.operations"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(every.before(stage), here)
    log.unlink(missing_ok=True)
    befell: list[str] = []
    left = list(asked)
    while True:
        faults = json.dumps([[fault.how, fault.kind, fault.name, fault.number] for fault in left])
        ended = run(here, stage, log, faults)
        lines = log.read_text().splitlines()
        found = [line for line in lines if line.startswith("fault\t")]
        if len(found) == len(befell):
            break
        _, how, kind, file = found[-1].split("\t")
        befell.append(f"{how} {kind} {file}")
        fits = [fault for fault in left if (fault.how, fault.kind, fault.name) == (how, kind, file)]
        left.remove(min(fits, key=lambda fault: fault.number))
        if how == "full" and ended.returncode == 0:  # what could not be written is made again when it is needed
            break
        if how == "full" and (wrong := full_disk_is_said(ended)):
            return befell, wrong
        if how != "full" and ended.returncode != -9:
            return befell, [f"it was not killed, but ended with {ended.returncode}: {ended.stdout[-3000:]}"]
    wrong = every.differences(here, stage, lines) if ended.returncode == 0 else [f"stuck: {ended.stdout[-3000:]}"]
    if not wrong:
        shutil.rmtree(here)
    return befell, wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="*", default=STAGES)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_intermixed_args()
    ends = time.monotonic() + asked.seconds
    if not asked.plain:
        shim.watch_all()
        import_everything()
    run = plain if asked.plain else in_a_fork
    every = Built(asked.folder.resolve())
    kept = every.folder / "trials.jsonl"
    for stage in STAGES[: 1 + max(map(STAGES.index, asked.stages))]:
        if time.monotonic() < ends:
            every.build(stage, run)
    done = {(row["stage"], row["seed"], row["trials"], row["number"]) for row in read_appended(kept)[0]}
    todo = [
        (number, stage, faults)
        for stage in asked.stages
        if (every.folder / f"{stage}.built").exists()
        for number, faults in enumerate(chains(every, stage, asked.trials, asked.seed))
        if (stage, asked.seed, asked.trials, number) not in done
    ]
    todo.sort(key=lambda at: (at[0], STAGES.index(at[1])))  # a chain of each stage, then a second one of each
    for number, stage, faults in todo:
        if (began := time.monotonic()) > ends:
            break
        befell, wrong = chain(every, stage, faults, f"{stage}-{asked.seed}-{asked.trials}-{number}", run)
        row: dict[str, Any] = {"stage": stage, "seed": asked.seed, "trials": asked.trials, "number": number}
        row |= {"befell": befell, "wrong": wrong, "seconds": round(time.monotonic() - began, 1), "plain": asked.plain}
        append_jsonl(kept, [row])
        print(f"{stage}: {'; '.join(befell)} -> {'; '.join(wrong) or 'equal'}", file=sys.stderr, flush=True)
    sys.exit(show(every, read_appended(kept)[0]))


def show(every: Built, rows: list[dict[str, Any]]) -> bool:
    """Print the table; True when something went wrong."""
    print(
        "| stage | file operations | killed | of these torn | of these in checkpoints | disk filled | as if left alone "
        "| chains that were not |"
    )
    print("|---" * (2 + len(COLUMNS)) + "|")
    total = Counter[str]()
    for stage in STAGES:
        found = Counter[str]()
        for row in rows:
            if row["stage"] == stage:
                found += _counted(row["befell"], row["wrong"])
        if found:
            print(_line(stage, str(len(every.operations(stage))), found))
        total += found
    print(_line("all", "", total))
    return total["wrong"] > 0


def _counted(befell: list[str], wrong: list[str]) -> Counter[str]:
    hows = Counter(fault.split()[0] for fault in befell)
    return Counter(
        killed=len(befell) - hows["full"],
        torn=hows["torn"],
        torn_checkpoints=sum(fault.startswith("torn ") and "/checkpoints/" in fault for fault in befell),
        full=hows["full"],
        good=0 if wrong else len(befell),
        wrong=bool(wrong),
    )


def _line(stage: str, operations: str, found: Counter[str]) -> str:
    return f"| {stage} | {operations} | " + " | ".join(str(found[key]) for key in COLUMNS) + " |"


if __name__ == "__main__":
    main()
