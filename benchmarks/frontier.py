"""How far a reward can be optimized before the truth turns: docs/overoptimization.md.

    python benchmarks/frontier.py run DEMO_FOLDER --work FOLDER [--limit-s 400] [--only ppo/flipped]
    python benchmarks/frontier.py best-of-n DEMO_FOLDER --work FOLDER
    python benchmarks/frontier.py draw --work FOLDER --out docs/overoptimization.png --csv docs/overoptimization.csv

On the SFT adapter, the completions and the simulated thumbs of a finished demo: DPO at four betas and PPO at four KL
coefficients, with clean thumbs and with a quarter of them flipped, and PPO with one reward and with five. Each policy
answers the held-out prompts. FOLDER/rows.jsonl gets a row for each; what is there is left out, and a policy that was
half trained goes on, so that the command can be stopped and started again. After `--limit-s` seconds no further policy
is begun. FOLDER/steps.jsonl has the truth of each rollout of PPO. `best-of-n` chooses among 16 answers of SFT to each
held-out prompt, which are read once, on ten draws of which thumbs are flipped.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from frontier_parts import best_of, drawing, labels, measuring

from trueup.run.artifacts import Feedback, read_jsonl
from trueup.run.files import append_jsonl, read_json
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

FLIPPED = 0.25
DRAWS = 10  # of which thumbs are flipped, and of the members' prompts
BETAS, KL_COEFS = (0.03, 0.1, 0.3, 1.0), (0.0, 0.02, 0.06, 0.2)
REWARD = ("reward.kind=head", "reward.thumbs_weight=0.3")
DPO = ("dpo.num_train_epochs=1", "dpo.learning_rate=3.0e-4", "dpo.save_steps=5")
PPO = (
    *("ppo.num_steps=10", "ppo.rollout_batch_size=16", "ppo.micro_batch_size=16", "ppo.num_ppo_epochs=2"),
    *("ppo.learning_rate=4.0e-4", "ppo.value_on=trunk", "ppo.temperature=0.7", "ppo.max_new_tokens=48"),
    *("ppo.save_steps=2", "ppo.num_reward_samples=64"),
)
MEMBERS = {"one": 1, "five, min": 5, "five, variance": 5}
COMBINED = {
    "five, min": ("ppo.combine=min",),
    "five, variance": ("ppo.combine=mean_minus_variance", f"ppo.variance_coefficient={measuring.UWO}"),
}


@dataclass(frozen=True)
class Cell:
    """One policy to train."""

    method: str
    labels: str  # clean or flipped
    reward: str  # one of MEMBERS; of dpo always one, since it reads no reward
    strength: float  # beta, or the KL coefficient

    @property
    def key(self) -> str:
        return f"{self.method}/{self.labels}/{self.reward}/{self.strength:g}"

    def overrides(self) -> tuple[str, ...]:
        how = (*DPO, f"dpo.beta={self.strength}")
        if self.method == "ppo":
            how = (*PPO, *COMBINED.get(self.reward, ()), f"ppo.kl_coef={self.strength}")
        name = f"{self.reward.replace(', ', '-')}-{self.strength:g}".replace(".", "p")
        return (f"method={self.method}", f"variant={name}", *how)


def cells() -> list[Cell]:
    """All policies; those come first without which nothing can be compared."""
    found = []
    for number in (0, 2, 1, 3):
        for said in ("flipped", "clean"):
            found += [Cell("ppo", said, reward, KL_COEFS[number]) for reward in ("one", "five, min")]
            found.append(Cell("dpo", said, "one", BETAS[number]))
    for number in (0, 2, 1, 3):
        found += [Cell("ppo", said, "five, variance", KL_COEFS[number]) for said in ("flipped", "clean")]
    return found


def opened(work: Path, said: str, members: int, seed: int, *more: str) -> Pipeline:
    """The run of these labels with a reward of so many members."""
    name = f"{said}-{members}"
    overrides = (f"name={name}", f"seed={seed}", f"data.preferences={said}.jsonl", *REWARD, *more)
    overrides += (f"reward.members={members}",)
    run = load(work / "demo.yaml", {stage.name: stage.config for stage in STAGES}, overrides)
    return Pipeline(run, STAGES, work / "runs", overrides)


def train(demo: Path, work: Path, cell: Cell, seed: int) -> dict[str, object]:
    """Build what is missing of a cell, measure the policy, and delete its checkpoints."""
    began = time.monotonic()
    for members in (1, 5):
        labels.begin(demo, work, f"{cell.labels}-{members}")
        made = opened(work, cell.labels, members, seed)
        for stage in ("collect", "reward"):
            made.execute(stage)
    pipeline = opened(work, cell.labels, MEMBERS[cell.reward], seed, *cell.overrides())
    with measuring.watched(work / "steps.jsonl", cell.key):
        pipeline.execute(cell.method)
    aligned = pipeline.path(cell.method)
    trained = (read_json(aligned / "record.json") or {})["wall_s"]
    rewards = {members: opened(work, cell.labels, members, seed).path("reward") for members in (1, 5)}
    found = measuring.measure(pipeline, aligned, rewards, work)
    shutil.rmtree(aligned / "checkpoints", ignore_errors=True)
    seconds = {"train_s": trained, "seconds": round(time.monotonic() - began, 1)}
    return {"key": cell.key, **vars(cell), **seconds, **found}


def begin(demo: Path, work: Path) -> int:
    """Lay out `work` where that is missing; return the seed of the demo."""
    work.mkdir(parents=True, exist_ok=True)
    labels.lay_out(demo, work, FLIPPED, DRAWS)
    return int((read_json(labels.finished(demo) / "sft/record.json") or {})["seed"])


def best_of_n(demo: Path, work: Path) -> None:
    """Best-of-n by each reward on clean thumbs, and on each draw of the noise."""
    seed, rows = begin(demo, work), work / "best_of.jsonl"
    done = {(row["labels"], row["seed"]) for row in read_jsonl(rows)} if rows.exists() else set()
    pool: best_of.Pool | None = None
    for draw in range(DRAWS):
        for said in ("clean", "flipped"):
            if (said, draw) in done:
                continue
            file = f"{said}-{draw}" if said == "flipped" and draw else said
            labels.begin(demo, work, f"{file}-1")
            pipeline = opened(work, file, 1, seed)
            pipeline.execute("collect")
            pool = pool or best_of.Pool(pipeline, work)
            append_jsonl(rows, best_of.rows(pool, Feedback(pipeline.path("collect")), said, draw))
            print(said, draw, flush=True)


def run(demo: Path, work: Path, limit_s: float, only: str) -> None:
    began, rows = time.monotonic(), work / "rows.jsonl"
    seed = begin(demo, work)
    done = {row["key"] for row in read_jsonl(rows)} if rows.exists() else set()
    left = [cell for cell in cells() if cell.key not in done and cell.key.startswith(only)]
    for number, cell in enumerate(left):
        if time.monotonic() - began > limit_s:
            print(f"{len(left) - number} policies are left")
            return
        append_jsonl(rows, [train(demo, work, cell, seed)])
        print(cell.key, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_subparsers(dest="what", required=True)
    trains, samples, draws = (does.add_parser(name) for name in ("run", "best-of-n", "draw"))
    for one in (trains, samples):
        one.add_argument("demo", type=Path, help="the folder of a finished `trueup demo`")
    trains.add_argument("--limit-s", type=float, default=float("inf"))
    trains.add_argument("--only", default="", help="how the policies to train begin, such as ppo/flipped")
    for one in (trains, samples, draws):
        one.add_argument("--work", type=Path, required=True)
    draws.add_argument("--out", type=Path, required=True)
    draws.add_argument("--csv", type=Path, required=True)
    asked = parser.parse_args()
    if asked.what == "run":
        run(asked.demo, asked.work, asked.limit_s, asked.only)
    elif asked.what == "best-of-n":
        best_of_n(asked.demo, asked.work)
    else:
        drawing.draw(list(read_jsonl(asked.work / "rows.jsonl")), asked.out, asked.csv)


if __name__ == "__main__":
    main()
