"""DPO by the number of votes, ours against raw TRL, on the simulated tasks; and the best of four answers by a reward.

`policies` trains, samples SAMPLES answers to each held-out prompt, and compares them with SFT's in truth. `best` takes
the best of each prompt's answers by the rewards that `budgets` trained on the same votes: raw TRL's policy with raw
TRL's reward, ours with ours.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from label_parts import budgets, material, pool, raw_trl, sampled
from label_parts.features import Row
from label_parts.material import SIMULATED
from label_parts.tasks import TASKS

WAYS = ("raw TRL", "ours")
OF_OURS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")
Job = tuple[str, Callable[[], list[Row]]]


def keys() -> Iterator[tuple[int, int, str]]:
    """(budget, seed, task) in the order in which they are made."""
    for budget in (100, 1000, 40, 400, 200):
        yield from ((budget, seed, task) for seed in budgets.SEEDS for task in SIMULATED)


def jobs(out: Path, runs: list[Path]) -> Iterator[Job]:
    """Every policy by its key, "task budget seed way"."""
    for budget, seed, task in keys():
        for way in WAYS:
            yield (
                f"{task} {budget} {seed} {way}",
                lambda task=task, budget=budget, seed=seed, way=way: [run(out, runs, task, budget, seed, way)],
            )


def run(out: Path, runs: list[Path], task: str, budget: int, seed: int, way: str) -> Row:
    """{task, budget, seed, way, win_rate, kl, tokens, ...} of one policy, its answers kept and its adapter deleted."""
    from label_parts.rewards import opened

    began, found, sft = time.monotonic(), material.of(task, out, tuple(runs)), runs[0] / "sft"
    made, counts = found.examples(budget, seed)
    name = _name(task, budget, seed, way)
    context = opened(made, seed, out / "policies" / name, "dpo")
    more = budgets.once(context.run_dir / "trained.json", lambda: _train(context, sft, made, way))
    prompts = pool.held_out_prompts(runs)
    more |= sampled.sample(out, name, prompts, sft, context.out, pool.SAMPLES, 1000 + seed)
    shutil.rmtree(context.run_dir)
    rate = float(np.mean(wins(truths(out, name, task), truths(out, pool.SFT, task))))
    about = {"task": task, "budget": budget, "seed": seed, "way": way}
    return about | counts | {"win_rate": rate, "wall_s": round(time.monotonic() - began), **more}


def best_jobs(out: Path, runs: list[Path]) -> Iterator[Job]:
    """The best of each policy's answers by each reward; those whose policy or reward is not there yet are named."""
    for budget, seed, task in keys():
        for way in WAYS:
            rewards = ("raw TRL",) if way == "raw TRL" else ("lora", "head")
            needed = [sampled.file_of(out, _name(task, budget, seed, way))]
            needed += [budgets.scores_file(out, task, budget, seed, one) for one in rewards]
            missing = [path.name for path in needed if not path.exists()]
            if missing:
                print(f"{task} {budget} {seed} {way}: not yet, without {', '.join(missing)}")
                continue
            yield (
                f"{task} {budget} {seed} {way}",
                lambda task=task, budget=budget, seed=seed, way=way, rewards=rewards: best(
                    out, runs, task, budget, seed, way, rewards
                ),
            )


def best(
    out: Path, runs: list[Path], task: str, budget: int, seed: int, way: str, rewards: tuple[str, ...]
) -> list[Row]:
    """{task, budget, seed, way, reward, of_sft, win_rate} by each of the rewards, and by the mean where there are two.

    `of_sft` is of SFT's own answers, the best of each prompt by the same reward.
    """
    from label_parts.rewards import scores, states

    rows, sft = sampled.answers_of(out, _name(task, budget, seed, way)), runs[0] / "sft"
    said: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of the policy's answers, and of SFT's
    for reward in rewards:
        kept = budgets.kept(out, task, budget, seed, reward)
        if reward == "head":
            said[reward] = states(sft, rows) @ kept["head"], kept["scores"]
        else:
            folder = budgets.folder_of(out, task, budget, seed, reward) / "reward"
            said[reward] = scores(sft, folder, rows), kept["scores"]
    if len(said) > 1:
        both = [[(one - of_sft.mean()) / of_sft.std() for one in (new, of_sft)] for new, of_sft in said.values()]
        said["mean of both"] = tuple(np.mean(some, axis=0) for some in zip(*both, strict=True))
    truth, before = truths(out, _name(task, budget, seed, way), task), truths(out, pool.SFT, task)
    about = {"task": task, "budget": budget, "seed": seed, "way": way}
    return [
        about
        | {"reward": reward, "win_rate": float(np.mean(wins(chosen(truth, new), before)))}
        | {"of_sft": float(np.mean(wins(chosen(before, of_sft), before)))}
        for reward, (new, of_sft) in said.items()
    ]


def truths(out: Path, name: str, task: str) -> np.ndarray:
    """(prompts, SAMPLES): what the answers of a policy are worth in truth."""
    rows = sampled.answers_of(out, name)
    worth = [TASKS[task].truth(row["messages"][-1]["content"], row["completion"]) for row in rows]
    return np.array(worth).reshape(-1, pool.SAMPLES)


def chosen(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(prompts, 1): the truth of the answer to each prompt that has the highest of the scores `said`, (answers,)."""
    return np.take_along_axis(truth, said.reshape(truth.shape).argmax(1)[:, None], 1)


def wins(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(prompts,): how often an answer of the first, (prompts, n), is better than one of the second; a tie is a half."""
    ahead = np.sign(first[:, :, None] - second[:, None, :])
    return (ahead.mean((1, 2)) + 1) / 2


def _train(context: Any, sft: Path, made: Any, way: str) -> Row:
    """One policy, its adapter in the context's folder."""
    began, settings = time.process_time(), _demo()
    if way == "ours":
        more = _ours(context, sft, settings)
    else:
        more = raw_trl.dpo(context, sft, made.pairs, **{name: settings[name] for name in OF_OURS})
    shutil.rmtree(context.checkpoints, ignore_errors=True)
    return more | {"train_cpu_s": round(time.process_time() - began)}


def _ours(context: Any, sft: Path, settings: Row) -> Row:
    from trueup.run.artifacts import Adapter, Feedback
    from trueup.stages import dpo

    config = dpo.Config.model_validate(settings)
    found = dpo.run(config, context, policy=Adapter(sft), feedback=Feedback(context.run_dir / "feedback"))
    return {"steps": found["num_steps"], "train_loss": found["train_loss"], "settings": settings}


def _demo() -> Row:
    """The section `dpo` of the demo's run file."""
    from ruamel.yaml import YAML

    text = files("trueup.demo").joinpath("run.yaml").read_text(encoding="utf-8")
    return dict(YAML(typ="safe").load(text)["dpo"])


def _name(task: str, budget: int, seed: int, way: str) -> str:
    return budgets.name_of(task, budget, seed, way)
