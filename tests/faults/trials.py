"""Kill a stage at its file operations, or fill its disk; run it again, and compare with a run that was left alone.

    python tests/faults/trials.py FOLDER NUM_TRIALS [STAGE...]

tries that many faults of every stage, spread over all its operations, and prints a table. Up to eight faults befall one
half-built stage, each in a new process that goes on from what the last one left; then it is left to end.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import WORDS, make_model

from trueup.run.artifacts import file_sha256, write_jsonl
from trueup.run.files import read_appended

SHIM = Path(__file__).with_name("shim.py")
STAGES = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")
HOWS = ("before", "torn", "after", "full")
HALVED = ("write", "save_file", "save", "copyfile")  # what can be torn
FILLS = (*HALVED, "mkdir")  # what needs space
IN_A_CHAIN = 8  # faults that befall one half-built stage
AT_ONCE = 2  # chains
COLUMNS = ("killed", "torn", "full", "good", "wrong")
SEALED = "trueup-manifest.json"
TIMED = ("tokens_per_s", "step_s", "rollout_s", "update_s")
RUN = """name: f
model: {{base: {base}}}
adapter: {{r: 4, lora_alpha: 8}}
data: {{demonstrations: d.jsonl, prompts: p.jsonl, held_out: h.jsonl, preferences: c.jsonl}}
sft: {{learning_rate: 0.01, num_train_epochs: 2, save_steps: 2, gradient_accumulation_steps: 1}}
sample: {{num_completions: 2, max_new_tokens: 6}}
reward: {{learning_rate: 0.001, save_steps: 2, gradient_accumulation_steps: 1}}
dpo: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
kto: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
ppo: {{num_steps: 4, rollout_batch_size: 8, max_new_tokens: 6, save_steps: 2}}
grpo: {{max_steps: 4, per_device_train_batch_size: 8, max_completion_length: 6, save_steps: 2}}
evaluate: {{num_completions: 1, max_new_tokens: 6}}
"""


@dataclass(frozen=True)
class Fault:
    """How a process ends, at which operation of a stage: the `number`-th of its kind on this file."""

    how: str
    kind: str
    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.how} {self.kind} {self.name}, time {self.number}"


class Faults:
    """A run whose stages are all built once, without a fault; `before` a stage, and `whole`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        start = folder / "start"
        start.mkdir(parents=True)
        make_model(folder / "model")
        asked = [f"{a} {b}" for a in WORDS for b in WORDS]
        longer = " ".join(WORDS * 2)  # sampled apart from the short ones
        write_jsonl(start / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in asked[:40]])
        write_jsonl(start / "p.jsonl", [{"prompt": q} for q in [*asked[40:47], longer]])
        write_jsonl(start / "h.jsonl", [{"prompt": q} for q in [*asked[48:51], f"{longer} red"]])
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
        done = self._typed(whole, stage, log, [])
        assert done.returncode == 0, done.stdout
        self.operations[stage] = log.read_text().splitlines()

    def numbered(self, stage: str) -> list[tuple[str, str, int]]:
        """(kind, file, which time) of every operation of the stage."""
        seen, found = Counter[str](), []
        for line in self.operations[stage]:
            seen[line] += 1
            kind, name = line.split("\t")
            found.append((kind, name, seen[line]))
        return found

    def chains(self, stage: str, count: int) -> list[list[Fault]]:
        """`count` faults, of each kind as many, spread evenly; each chain goes through the stage from end to end."""
        chosen: list[tuple[int, Fault]] = []
        for n, how in enumerate(HOWS):
            fits = {"torn": HALVED, "full": FILLS}.get(how)
            every = [
                (place, Fault(how, *operation))
                for place, operation in enumerate(self.numbered(stage))
                if fits is None or operation[0] in fits
            ]
            share = min(count // len(HOWS) + (n < count % len(HOWS)), len(every))
            chosen += [every[int((i + (n + 0.5) / len(HOWS)) * len(every) / share)] for i in range(share)]
        chosen.sort(key=lambda at: at[0])
        num_chains = -(-len(chosen) // IN_A_CHAIN)
        return [[fault for _, fault in chosen[i::num_chains]] for i in range(num_chains)]

    def last(self, stage: str, how: str, kind: str, name: str) -> Fault:
        """The fault at the last operation of a kind on a file whose name ends so."""
        return Fault(how, *[at for at in self.numbered(stage) if at[0] == kind and at[1].endswith(name)][-1])

    def chain(self, stage: str, asked: Sequence[Fault], name: str = "chain") -> tuple[list[str], list[str]]:
        """(the faults that befell the stage one after the other, what is wrong after it was run again)."""
        here, log = self.folder / name, self.folder / f"{name}.operations"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self.folder / f"before-{stage}", here)
        log.unlink(missing_ok=True)
        befell: list[str] = []
        left = list(asked)
        while True:
            ended = self._typed(here, stage, log, left)
            found = [line for line in log.read_text().splitlines() if line.startswith("fault\t")]
            if len(found) == len(befell):
                break
            _, how, kind, file = found[-1].split("\t")
            befell.append(f"{how} {kind} {file}")
            fits = [fault for fault in left if (fault.how, fault.kind, fault.name) == (how, kind, file)]
            left.remove(min(fits, key=lambda fault: fault.number))
            if how == "full" and (ended.returncode, one_message(ended.stdout)) != (2, True):
                return befell, [f"on a full disk it ended with {ended.returncode}: {ended.stdout[-3000:]}"]
            if how != "full" and ended.returncode != -9:
                return befell, [f"it was not killed, but ended with {ended.returncode}: {ended.stdout[-3000:]}"]
        if ended.returncode != 0:
            return befell, [f"stuck: {ended.stdout[-3000:]}"]
        return befell, self._differences(here, stage, log)

    def _differences(self, here: Path, stage: str, log: Path) -> list[str]:
        mine, whole = self._made(here, stage), self._made(self.folder / "whole", stage)
        wrong = [f"{name} differs" for name in whole if mine.get(name) != whole[name]]
        wrong += [f"{name} was left" for name in mine if name not in whole]
        lines = log.read_text().splitlines()
        until = max((i for i, line in enumerate(lines) if line.startswith("fault\t")), default=0)
        sealed = {line for line in lines[:until] if line.startswith("replace") and SEALED in line}
        trained = any("record.json.tmp" in line for line in lines[:until])  # the record is that of an earlier process
        metrics, expected = (
            json.loads((self._place(folder, stage) / "record.json").read_text())["metrics"]
            for folder in (here, self.folder / "whole")
        )
        if metrics.get("num_steps") != expected.get("num_steps"):
            wrong.append(f"{metrics['num_steps']} steps, not {expected['num_steps']}")
        # the newest seal may have been half way
        if len(sealed) > 1 and not trained and metrics.get("resumed_from_step", 1) == 0:
            wrong.append(f"it began at 0, with {len(sealed)} checkpoints sealed")
        return wrong

    def _typed(self, here: Path, stage: str, log: Path, faults: Sequence[Fault]) -> "subprocess.CompletedProcess[str]":
        asked = json.dumps([[fault.how, fault.kind, fault.name, fault.number] for fault in faults])
        method = f"method={stage if stage in ('kto', 'ppo', 'grpo') else 'dpo'}"
        shim = [sys.executable, str(SHIM), str(here / "runs"), str(log), asked]
        return subprocess.run(
            [*shim, stage, str(here / "run.yaml"), "--set", method],
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
        timed = {"record.json", "plan.json", "README.md"}
        files = [path for path in place.rglob("*") if path.is_file() and path.name not in timed]
        kept = [path for path in files if path.suffix != ".html" and "checkpoints" not in path.parts]
        kept += [path for path in files if path.name.startswith("torn-") or path.suffix == ".tmp"]
        return {str(path.relative_to(place)): contents(path) for path in kept}


def contents(path: Path) -> str:
    """The SHA-256 of a file; of a log or a report, what it holds besides how fast it went."""

    def untimed(found: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in found.items() if key not in TIMED}

    if path.name == "report.json":
        return json.dumps(json.loads(path.read_text(), object_hook=untimed))
    if path.name == "metrics.jsonl":
        return json.dumps([untimed(row) for row in read_appended(path)[0]])
    return file_sha256(path)


def one_message(said: str) -> bool:
    """Whether a full disk was said in one message, without a traceback."""
    return "Traceback" not in said and said.count("the disk is full") == 1


def main() -> None:
    every, count, asked = Faults(Path(sys.argv[1]).resolve()), int(sys.argv[2]), sys.argv[3:] or STAGES
    for stage in STAGES[: 1 + max(map(STAGES.index, asked))]:
        every.build(stage)
    sys.exit(try_all(every, {stage: every.chains(stage, count) for stage in STAGES if stage in asked}))


def try_all(every: Faults, chains: dict[str, list[list[Fault]]]) -> bool:
    """Try chains of faults, print a line for each and the table; True when something went wrong."""
    found = {stage: Counter[str]() for stage in chains}

    def tried(stage: str, number: int) -> None:
        befell, wrong = every.chain(stage, chains[stage][number], f"{stage}-{number}")
        hows = Counter(fault.split()[0] for fault in befell)
        good = 0 if wrong else len(befell)
        found[stage] += Counter(
            killed=len(befell) - hows["full"], torn=hows["torn"], full=hows["full"], good=good, wrong=bool(wrong)
        )
        print(f"{stage}: {'; '.join(befell)} -> {'; '.join(wrong) or 'equal'}", file=sys.stderr, flush=True)

    most = max(map(len, chains.values()))
    with ThreadPoolExecutor(AT_ONCE) as pool:  # a chain of each stage, then a second one of each
        done = [pool.submit(tried, stage, n) for n in range(most) for stage in chains if n < len(chains[stage])]
    for one in done:
        one.result()
    print(
        "| stage | file operations | killed | of these torn | disk filled | as if left alone | chains that were not |"
    )
    print("|---|---|---|---|---|---|---|")
    for stage, counts in found.items():
        print(row(stage, str(len(every.operations[stage])), counts))
    total = sum(found.values(), Counter[str]())
    print(row("all", "", total))
    return total["wrong"] > 0


def row(stage: str, operations: str, found: Counter[str]) -> str:
    """A line of the table."""
    return f"| {stage} | {operations} | " + " | ".join(str(found[key]) for key in COLUMNS) + " |"


if __name__ == "__main__":
    main()
