"""Rewards by the number of votes: ours against raw TRL, on every task, budget and seed. Each job makes one row.

What each reward says of the held-out answers is kept under `scores`, in their order in the material, and a head's
weight beside it, so that means of rewards and best-of-n need no training.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from label_parts import features, material, real
from label_parts.features import Row
from label_parts.material import BUDGETS, REAL, SIMULATED, Material

SEEDS = range(5)
HEADS = {"head": 0.3, "head, pairs": 0.0}  # way: the weight of a thumb
LORAS = ("raw TRL", "lora")
Job = tuple[str, Callable[[], list[Row]]]


def keys(tasks: Sequence[str]) -> Iterator[tuple[str, int, int, str]]:
    """(task, budget, seed, way) in the order in which they are made.

    Heads take seconds and come first; then LoRA at 40 and 100 votes, then raw TRL at 1,000, then the rest.
    """
    for task in tasks:
        for budget in BUDGETS:
            for seed in SEEDS:
                yield from ((task, budget, seed, way) for way in HEADS if way == "head" or task in SIMULATED)
    blocks = [(100, LORAS), (40, LORAS), (1000, LORAS[:1]), (400, LORAS), (200, LORAS), (1000, LORAS[1:])]
    for budget, ways in blocks:
        for seed in SEEDS:
            yield from ((task, budget, seed, way) for task in tasks for way in ways)


def jobs(out: Path, runs: list[Path]) -> Iterator[Job]:
    """Every job by its key, "task budget seed way"; tasks whose data is not there are named."""
    for missing in filter(None, map(real.there, REAL)):
        print(missing, flush=True)
    for task, budget, seed, way in keys((*SIMULATED, *(task for task in REAL if not real.there(task)))):
        yield (
            f"{task} {budget} {seed} {way}",
            lambda task=task, budget=budget, seed=seed, way=way: [run(out, runs, task, budget, seed, way)],
        )


def run(out: Path, runs: list[Path], task: str, budget: int, seed: int, way: str) -> Row:
    """{task, budget, seed, way, accuracy, votes, minutes, pairs, thumbs, ...} of one reward."""
    from label_parts import rewards

    began, found = time.monotonic(), material.of(task, out, tuple(runs))
    made, counts = found.examples(budget, seed)
    about = {"task": task, "budget": budget, "seed": seed, "way": way}
    apart = [row for row in found.rows if row["held_out"]]
    name = name_of(task, budget, seed, way)
    also: dict[str, np.ndarray] = {}
    if way in HEADS:
        states = features.load(found.rows, cache(out, task)).states
        place = {row["uid"]: number for number, row in enumerate(found.rows)}
        head = rewards.head(states, place, made, seed, HEADS[way])
        also["head"] = head.weight.numpy()
        said = states[[row["held_out"] for row in found.rows]] @ also["head"]
        more: Row = {"penalty": head.penalty}
    else:
        folder = folder_of(out, task, budget, seed, way)
        train = rewards.raw if way == "raw TRL" else rewards.ours
        more = once(folder / "trained.json", lambda: train(runs[0] / "sft", made, seed, folder))
        trained = time.process_time()
        said = rewards.scores(runs[0] / "sft", folder / "reward", apart)
        more |= {"score_cpu_s": round(time.process_time() - trained)}
        if task in REAL:  # policies are trained on the simulated tasks alone, and choose by these rewards
            shutil.rmtree(folder)
    keep(out, name, also | {"scores": said})
    return about | counts | {"accuracy": accuracy(found, said), "wall_s": round(time.monotonic() - began), **more}


def once(note: Path, make: Callable[[], Row]) -> Row:
    """What `make` returned, from `note` where it was done before a job was stopped."""
    from trueup.run.files import read_json, write_json

    if (known := read_json(note)) is None:
        write_json(note, known := make())
    return known


def accuracy(found: Material, said: np.ndarray) -> float:
    """The share of the test pairs that the scores of the held-out answers, (answers,), order right; equal is wrong."""
    place = {number: at for at, number in enumerate(n for n, row in enumerate(found.rows) if row["held_out"])}
    return float(np.mean([said[place[better]] > said[place[worse]] for better, worse in found.test]))


def cache(out: Path, task: str) -> Path:
    """Where the states of a task's answers are kept."""
    return out / "features" / f"{'pool' if task in SIMULATED else task}.safetensors"


def name_of(task: str, budget: int, seed: int, way: str) -> str:
    """What files of a job are called."""
    return f"{task} {budget} {seed} {way}".replace(" ", "-").replace(",", "")


def folder_of(out: Path, task: str, budget: int, seed: int, way: str) -> Path:
    """Where an adapter is trained; those of the simulated tasks stay, in `reward` below it."""
    return out / "rewards" / name_of(task, budget, seed, way)


def scores_file(out: Path, task: str, budget: int, seed: int, way: str) -> Path:
    """Where it is kept what a reward says of the held-out answers."""
    return out / "scores" / f"{name_of(task, budget, seed, way)}.safetensors"


def kept(out: Path, task: str, budget: int, seed: int, way: str) -> dict[str, np.ndarray]:
    """`scores`, (held-out answers,), and of a head also `head`, (hidden,)."""
    from safetensors.numpy import load_file

    return dict(load_file(scores_file(out, task, budget, seed, way)))


def keep(out: Path, name: str, tensors: dict[str, np.ndarray]) -> None:
    """Write what a reward says, whole or not at all."""
    from safetensors.numpy import save_file

    (out / "scores").mkdir(exist_ok=True)
    aside = out / "scores" / f"{name}.partial"
    save_file({key: np.ascontiguousarray(value, dtype=np.float32) for key, value in tensors.items()}, aside)
    aside.replace(out / "scores" / f"{name}.safetensors")


def caches(out: Path, runs: list[Path]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What all jobs read: SFT's answers to the held-out prompts, and the states of all answers."""
    from label_parts import pool, sampled

    def sample() -> Any:
        return sampled.sample(out, pool.SFT, pool.held_out_prompts(runs), runs[0] / "sft", None, pool.SAMPLES, 1)

    yield "samples", sample
    for task in (SIMULATED[0], *REAL):
        if task in REAL and (missing := real.there(task)):
            print(missing, flush=True)
            continue
        yield (
            f"states of {cache(out, task).stem}",
            lambda task=task: features.compute(
                runs[0], material.of(task, out, tuple(runs)).rows, cache(out, task), 400
            ),
        )
