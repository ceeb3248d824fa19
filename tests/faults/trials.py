"""Kill a stage at a file operation, go on in a new process, and compare with a run that was left alone.

    python tests/faults/trials.py FOLDER NUM_TRIALS

tries that many of every stage, spread over all its operations, and prints a table.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import WORDS, make_model

from trueup.run.artifacts import file_sha256, write_jsonl

SHIM = Path(__file__).with_name("shim.py")
STAGES = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")
HOWS = ("before", "torn", "after")
WRITES = ("write", "save_file", "save")  # what can be torn
SEALED = "trueup-manifest.json"
RUN = """name: f
model: {{base: {base}}}
adapter: {{r: 4, lora_alpha: 8}}
data: {{demonstrations: d.jsonl, prompts: p.jsonl, held_out: h.jsonl, preferences: c.jsonl}}
sft: {{learning_rate: 0.01, num_train_epochs: 2, save_steps: 2}}
sample: {{num_completions: 2, max_new_tokens: 6}}
reward: {{learning_rate: 0.001, save_steps: 2, gradient_accumulation_steps: 1}}
dpo: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
kto: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
ppo: {{num_steps: 4, rollout_batch_size: 8, max_new_tokens: 6, save_steps: 2}}
grpo: {{max_steps: 4, per_device_train_batch_size: 8, max_completion_length: 6, save_steps: 2}}
evaluate: {{num_completions: 1, max_new_tokens: 6}}
"""


@dataclass(frozen=True)
class Trial:
    """Stage, which of its operations, and how the process ended there."""

    stage: str
    number: int
    how: str
    operation: str


class Faults:
    """A run whose stages are all built once, without a fault; `before` a stage, and `whole`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        start = folder / "start"
        start.mkdir(parents=True)
        make_model(folder / "model")
        asked = [f"{a} {b}" for a in WORDS for b in WORDS]
        write_jsonl(start / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in asked[:40]])
        write_jsonl(start / "p.jsonl", [{"prompt": q} for q in asked[40:48]])
        write_jsonl(start / "h.jsonl", [{"prompt": q} for q in asked[48:52]])
        pairs = [{"prompt": q, "chosen": WORDS[i % 5], "rejected": "no"} for i, q in enumerate(asked[60:84])]
        write_jsonl(start / "c.jsonl", pairs)
        (start / "run.yaml").write_text(RUN.format(base=folder / "model"))
        self.operations: dict[str, list[str]] = {}

    def build(self, stage: str) -> None:
        """Build a stage without a fault, and note its operations."""
        whole, log = self.folder / "whole", self.folder / f"{stage}.operations"
        if not whole.exists():
            shutil.copytree(self.folder / "start", whole)
        shutil.copytree(whole, self.folder / f"before-{stage}")
        done = self._typed(whole, stage, log, 0, "before")
        assert done.returncode == 0, done.stdout
        self.operations[stage] = log.read_text().splitlines()

    def trials(self, stage: str, count: int) -> Iterator[Trial]:
        """`count` of all (operation, how), spread evenly."""
        found = [
            Trial(stage, number, how, operation.replace("\t", " "))
            for number, operation in enumerate(self.operations[stage], start=1)
            for how in HOWS
            if how != "torn" or operation.split("\t")[0] in WRITES
        ]
        step = max(len(found) / count, 1)
        yield from (found[int((i + 0.5) * step)] for i in range(min(count, len(found))))

    def last(self, stage: str, how: str, kind: str, name: str) -> Trial:
        """The trial at the last operation of a kind on a file whose name ends so."""
        found = enumerate(self.operations[stage], start=1)
        number, operation = [at for at in found if at[1].startswith(f"{kind}\t") and at[1].endswith(name)][-1]
        return Trial(stage, number, how, operation.replace("\t", " "))

    def faults(self, trial: Trial) -> list[str]:
        """What is wrong after the stage was killed and run again."""
        here = self.folder / "trial"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self.folder / f"before-{trial.stage}", here)
        log = self.folder / "trial.operations"
        log.unlink(missing_ok=True)
        killed = self._typed(here, trial.stage, log, trial.number, trial.how)
        if killed.returncode != -9:
            return [f"it ended by itself, with {killed.returncode}: {killed.stdout[-300:]}"]
        done = log.read_text().splitlines()
        sealed = sum(line.startswith("replace") and SEALED in line for line in done)
        trained = any("record.json.tmp" in line for line in done)  # nothing is left to train: the record is the first's
        again = self._typed(here, trial.stage, self.folder / "again.operations", 0, "before")
        if again.returncode != 0:
            return [f"stuck: {again.stdout[-600:]}"]
        mine, whole = self._made(here, trial.stage), self._made(self.folder / "whole", trial.stage)
        wrong = [f"{name} differs" for name in whole if mine.get(name) != whole[name]]
        wrong += [f"{name} was left" for name in mine if name not in whole]
        metrics = json.loads((self._place(here, trial.stage) / "record.json").read_text())["metrics"]
        # the newest seal may have been half way, and a checkpoint of which nothing is left is none
        if sealed > 1 and not trained and metrics.get("resumed_from_step", 1) == 0:
            wrong.append(f"it began at 0, with {sealed} checkpoints sealed")
        return wrong

    def _typed(self, here: Path, stage: str, log: Path, number: int, how: str) -> "subprocess.CompletedProcess[str]":
        shim = [sys.executable, str(SHIM), str(here / "runs"), str(log), str(number), how]
        return subprocess.run(
            [
                *shim,
                stage,
                str(here / "run.yaml"),
                "--set",
                f"method={stage if stage in ('kto', 'ppo', 'grpo') else 'dpo'}",
            ],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )

    def _place(self, here: Path, stage: str) -> Path:
        return next(here.glob(f"runs/f/{stage}/record.json"), here / f"runs/f/round-1/{stage}/record.json").parent

    def _made(self, here: Path, stage: str) -> dict[str, str]:
        """Every file of the stage but what holds times, names of the folder, or checkpoints."""
        place = self._place(here, stage)
        timed = {"record.json", "plan.json", "README.md", "metrics.jsonl"}
        files = [path for path in place.rglob("*") if path.is_file() and path.name not in timed]
        kept = [path for path in files if path.suffix != ".html" and "checkpoints" not in path.parts]
        kept += [path for path in files if path.name.startswith("torn-") or path.suffix == ".tmp"]
        return {str(path.relative_to(place)): file_sha256(path) for path in kept}


def main() -> None:
    folder, count = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    every, total = Faults(folder), Counter[str]()
    print("| stage | file operations | killed at | as if left alone | otherwise |\n|---|---|---|---|---|")
    for stage in STAGES:
        every.build(stage)
        found = {trial: every.faults(trial) for trial in every.trials(stage, count)}
        wrong = {trial: faults for trial, faults in found.items() if faults}
        total += Counter(tried=len(found), wrong=len(wrong))
        print(
            f"| {stage} | {len(every.operations[stage])} | {len(found)} | {len(found) - len(wrong)} | {len(wrong)} |",
            flush=True,
        )
        for trial, faults in wrong.items():
            print(
                f"{trial.how} {trial.operation} (number {trial.number}): {'; '.join(faults)}",
                file=sys.stderr,
                flush=True,
            )
    print(f"| all | | {total['tried']} | {total['tried'] - total['wrong']} | {total['wrong']} |")
    sys.exit(total["wrong"] > 0)


if __name__ == "__main__":
    main()
