"""A tiny run whose stages are all built once without a fault, and the comparison of another build with it."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trueup.run.artifacts import file_sha256, write_jsonl
from trueup.run.files import read_appended

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `tiny` is
SHIM = Path(__file__).with_name("shim.py")
STAGES = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")
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
Ended = subprocess.CompletedProcess[str]
Run = Callable[[Path, str, Path, str], Ended]  # (folder, stage, log of the operations, faults in JSON)


class Built:
    """A folder with `start` (the inputs), `before-<stage>` for each stage, and `whole`, where all of them are built.

    A folder that was made before is used again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, folder / "whole"
        if self.whole.exists():
            return
        from tiny import WORDS, make_model  # after the shim: it imports torch

        start = folder / "start"
        shutil.rmtree(start, ignore_errors=True)
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
        start.rename(self.whole)

    def before(self, stage: str) -> Path:
        """The run as it is before `stage` is built."""
        return self.folder / f"before-{stage}"

    def operations(self, stage: str) -> list[str]:
        """The file operations of the stage, in order: a kind and a file each."""
        return (self.folder / f"{stage}.operations").read_text().splitlines()

    def build(self, stage: str, run: Run | None = None) -> None:
        """Build a stage without a fault, and note its operations; nothing where that was done before."""
        log = self.folder / f"{stage}.half"
        log.unlink(missing_ok=True)
        with self.building(stage) as here:
            if here is not None:
                done = (run or plain)(here, stage, log, "[]")
                assert done.returncode == 0, done.stdout
                log.rename(self.folder / f"{stage}.operations")

    @contextmanager
    def building(self, stage: str) -> Iterator[Path | None]:
        """The run to build the stage in within the block, as it was before; None where the stage is built already."""
        built, copied = self.folder / f"{stage}.built", self.folder / "copied"
        if built.exists():
            yield None
            return
        if self.before(stage).exists():  # it was stopped while it built
            shutil.rmtree(self.whole)
            shutil.copytree(self.before(stage), self.whole)
        else:
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(self.whole, copied)
            copied.rename(self.before(stage))
        yield self.whole
        built.touch()

    def numbered(self, stage: str) -> Iterator[tuple[str, str, int]]:
        """(kind, file, which time) of every operation of the stage."""
        seen = Counter[str]()
        for line in self.operations(stage):
            seen[line] += 1
            kind, name = line.split("\t")
            yield kind, name, seen[line]

    def differences(self, here: Path, stage: str, log: Sequence[str] = ()) -> list[str]:
        """What is wrong with the stage built in `here`, given the operations that all processes noted in `log`."""
        mine, whole = made(here, stage), made(self.whole, stage)
        wrong = [f"{name} differs" for name in whole if mine.get(name) != whole[name]]
        wrong += [f"{name} was left" for name in mine if name not in whole]
        metrics, expected = (
            json.loads((place(folder, stage) / "record.json").read_text())["metrics"] for folder in (here, self.whole)
        )
        if metrics.get("num_steps") != expected.get("num_steps"):
            wrong.append(f"{metrics['num_steps']} steps, not {expected['num_steps']}")
        return wrong + anew(metrics, log)


def anew(metrics: dict[str, object], log: Sequence[str]) -> list[str]:
    """What was made again although it had been kept, when the last fault befell the stage."""
    until = max((i for i, line in enumerate(log) if line.startswith("fault\t")), default=0)
    if any("record.json.tmp" in line for line in log[:until]):  # the record may be that of an earlier process
        return []
    sealed = {line for line in log[:until] if line.startswith("replace") and SEALED in line}
    kept = [line for line in log[:until] if line.startswith("fsync") and line.endswith(".kept.jsonl")]
    # the newest seal, or the newest answers, may have been half way
    if len(sealed) > 1 and metrics.get("resumed_from_step", 1) == 0:
        return [f"it began at 0, with {len(sealed)} checkpoints sealed"]
    if len(kept) > 1 and metrics.get("num_resumed", 1) == 0:
        return ["answers that were kept were sampled again"]
    return []


def typed(here: Path, stage: str, command: Sequence[str] = ("-m", "trueup.cli.main")) -> Ended:
    """The command of a stage, in a new process; `command` is what Python is to run."""
    return subprocess.run(
        [sys.executable, *command, *words(here, stage)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )


def plain(here: Path, stage: str, log: Path, faults: str) -> Ended:
    """The command of a stage with faults, in a plain new process."""
    return typed(here, stage, [str(SHIM), str(here / "runs"), str(log), faults])


def words(here: Path, stage: str) -> list[str]:
    """What is typed behind `trueup`, with the override under which the stage is one of the run."""
    method = stage if stage in ("kto", "ppo", "grpo") else "dpo"
    return [stage, str(here / "run.yaml"), "--set", f"method={method}"]


def forked(here: Path, stage: str, prepare: Callable[[], object] = lambda: None) -> Ended:
    """The command of a stage, in a fork of this process, which has imported the libraries."""
    with tempfile.TemporaryFile("w+") as said:
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                prepare()
                sys.argv[1:] = words(here, stage)
                from trueup.cli.main import main

                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return Ended(words(here, stage), code, said.read())


def import_everything() -> None:
    """Import the libraries once, for all forks."""
    ours = (
        "training.steps",
        "training.lean",
        "sampling.sample",
        "report.writing",
        "chat.preflight",
        "online.rewards",
    )
    for name in ("transformers", "datasets", "peft", "bitsandbytes", "trl", *(f"trueup.{name}" for name in ours)):
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)


def place(here: Path, stage: str) -> Path:
    """The folder of a complete stage."""
    return next(here.glob(f"runs/f/{stage}/record.json"), here / f"runs/f/round-1/{stage}/record.json").parent


def made(here: Path, stage: str) -> dict[str, str]:
    """Every file of the stage but what holds times, names of the folder, or checkpoints."""
    folder = place(here, stage)
    timed = {"record.json", "plan.json", "README.md"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in timed]
    kept = [path for path in files if path.suffix != ".html" and "checkpoints" not in path.parts]
    kept += [path for path in files if path.name.startswith("torn-") or path.suffix == ".tmp"]
    return {str(path.relative_to(folder)): contents(path) for path in kept}


def contents(path: Path) -> str:
    """The SHA-256 of a file; of a log or a report, what it holds besides how fast it went."""

    def untimed(found: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in found.items() if key not in TIMED}

    if path.name == "report.json":
        return json.dumps(json.loads(path.read_text(), object_hook=untimed))
    if path.name == "metrics.jsonl":
        return json.dumps([untimed(row) for row in read_appended(path)[0]], sort_keys=True)
    return file_sha256(path)


def full_disk_is_said(ended: Ended) -> list[str]:
    """What is wrong with how a process ended that found the disk full."""
    said = ended.stdout
    times = said.count("the disk is full") + said.count("GB free on the disk")  # export looks before it begins
    if ended.returncode == 2 and "Traceback" not in said and times == 1 and "next: " in said:
        return []
    return [f"on a full disk it ended with {ended.returncode}: {said[-3000:]}"]
