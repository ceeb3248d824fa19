"""Measuring instead of predicting: two real steps of a stage at its worst length, in a process of its own.

The stage is the real one, on texts made up here: a scratch run with the same base, adapter and section.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from trueup.errors import StageError
from trueup.run.artifacts import Completions, Feedback, write_json, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import RunFile, load
from trueup.run.stage import Stage

WORDS = ("tent", "rope", "boot", "lamp", "stove", "map", "snow", "rain", "wind", "path", "camp", "river")
NUM_STEPS = 2
Row = dict[str, Any]
# the policy that other stages start from: changed enough for the reference proof
SHORT_TOKENS = 96
SHORT_SFT = {"max_length": SHORT_TOKENS, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "num_train_epochs": 2}
FEW_HEADS = 2
SHORT_REWARD = {"max_length": SHORT_TOKENS, "per_device_train_batch_size": 2}


def measure(pipeline: Pipeline, name: str, scratch: Path) -> dict[str, float]:
    """{"peak_bytes", "seconds"} of two steps of stage `name`: the peak above the process after its imports.

    Raises StageError, with its last words, when a process fails, as it does when memory runs out.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    if name != "sft":
        reward = SHORT_REWARD | _members(pipeline.run)
        write_json(scratch / "run.json", _settings(pipeline.run, {"sft": SHORT_SFT, "reward": reward}))
        _in_own_process("prepare", name, scratch)
    section = pipeline.run.section(name).model_dump(mode="json") | dict(pipeline.stages[name].two_steps)
    write_json(scratch / "run.json", _settings(pipeline.run, {name: section}))
    return _in_own_process("measure", name, scratch)


def _members(run: RunFile) -> dict[str, Any]:
    """The kind and the number of reward models; of heads, whose number changes no memory, at most two."""
    values = run.section("reward").model_dump()
    number = values["members"] if values["kind"] == "lora" else min(values["members"], FEW_HEADS)
    return {"kind": values["kind"], "members": number}


def _settings(run: RunFile, sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "probe",
        "model": run.model.model_dump(mode="json"),
        "adapter": run.adapter.model_dump(mode="json") | {"start": None},
        "data": {"demonstrations": "demonstrations.jsonl", "prompts": "prompts.jsonl"},
        **sections,
    }


def _in_own_process(what: str, name: str, scratch: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "trueup.cli.probe", what, name, str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n  ".join(done.stderr.strip().splitlines()[-3:]) or f"signal {-done.returncode}"
        raise StageError(
            f"probe of {name}", found=last, expected="two steps", next_step="trueup plan RUN.yaml, without --probe"
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(stages: tuple[Stage, ...], what: str, name: str, scratch: Path) -> dict[str, float]:
    """What the process of `measure` does: prepare what the stage needs, or measure it. See `trueup.cli.probe`."""
    run = load(scratch / "run.json", {stage.name: stage.config for stage in stages})
    pipeline = Pipeline(run, stages, scratch / "runs")
    if what == "measure":
        return _measure_here(pipeline, name, scratch)
    texts = _Texts(run, SHORT_TOKENS)
    texts.demonstrations(scratch, 32)
    pipeline.execute("sft")
    if "reward" in pipeline.stages[name].needs:
        _put(pipeline, "collect", texts.feedback(8))
        pipeline.execute("reward")
    return {}


def _measure_here(pipeline: Pipeline, name: str, scratch: Path) -> dict[str, float]:
    import time

    values, needs = pipeline.run.section(name).model_dump(), pipeline.stages[name].needs
    limit = values["max_prompt_tokens"] if "completions" in needs else values["max_length"]
    texts = _Texts(pipeline.run, limit)
    rows = NUM_STEPS * values.get("per_device_train_batch_size", 0) * values.get("gradient_accumulation_steps", 1)
    if not needs:
        texts.demonstrations(scratch, rows + 1)  # one is held out
    elif "completions" in needs:
        texts.prompts(scratch, values["rollout_batch_size"])
        _put(pipeline, "sample", {"completions.jsonl": texts.completions(16)})
    else:
        _put(pipeline, "collect", texts.feedback(rows))
    began, baseline = time.monotonic(), _start_measuring()
    pipeline.execute(name, use_stale=True)  # what it starts from was made in two steps as well
    return {"peak_bytes": _peak_bytes() - baseline, "seconds": time.monotonic() - began}


def _put(pipeline: Pipeline, name: str, files: dict[str, list[Row]]) -> None:
    """A complete artifact made here."""
    folder = pipeline.path(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in files.items():
        write_jsonl(folder / file, rows)
    artifact = Feedback(folder) if name == "collect" else Completions(folder)
    write_json(folder / "record.json", {"fingerprint": artifact.fingerprint(), "metrics": {}})


class _Texts:
    """Texts of random words, no two alike, that fill `limit` tokens with the chat template around them."""

    def __init__(self, run: RunFile, limit: int) -> None:
        from trueup.models import base

        self.tokenizer, self.limit = base.load_tokenizer(run.model), limit
        self.random = random.Random(0)  # noqa: S311 - made-up texts

    def demonstrations(self, folder: Path, count: int) -> None:
        rows = [{"prompt": self._words(4), "response": self._answer()} for _ in range(count)]
        write_jsonl(folder / "demonstrations.jsonl", rows)

    def prompts(self, folder: Path, count: int) -> None:
        write_jsonl(folder / "prompts.jsonl", [{"prompt": self._filling([])} for _ in range(count)])

    def completions(self, count: int) -> list[Row]:
        return [
            {"uid": str(i), "prompt_id": str(i), "messages": self._messages(), "completion": self._words(4 + i)}
            for i in range(count)
        ]

    def feedback(self, count: int) -> dict[str, list[Row]]:
        shared = [{"prompt_id": str(i), "split": "train", "prompt": self._messages()} for i in range(count)]
        pairs = [row | {"chosen": self._answer(), "rejected": self._answer(), "weight": 1.0} for row in shared]
        thumbs = [
            row | {"completion": self._answer(), "label": i % 2 == 0, "weight": 1.0, "uid": str(i), "annotator": "x"}
            for i, row in enumerate(shared)
        ]
        return {"annotations.jsonl": [], "pairs.jsonl": pairs, "rows.jsonl": thumbs}

    def _messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self._words(4)}]

    def _answer(self) -> str:
        return self._filling(self._messages())

    def _filling(self, before: list[dict[str, str]]) -> str:
        """Words for one more message, so that the conversation is as long as allowed and no longer."""
        words = self._words(self.limit).split()
        role = "assistant" if before else "user"
        while True:
            messages = [*before, {"role": role, "content": " ".join(words)}]
            tokens = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=not before, tokenize=True, return_dict=False
            )
            if len(tokens) <= self.limit - 4:  # the prompt in the file is another, and a little longer at most
                return " ".join(words)
            del words[-max(1, (len(tokens) - self.limit) // 8) :]

    def _words(self, count: int) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(count))


def _start_measuring() -> int:
    """Import what every stage imports, forget the peak so far, and say what the process holds now, in bytes."""
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    import trl.trainer.dpo_trainer
    import trl.trainer.kto_trainer
    import trl.trainer.reward_trainer
    import trl.trainer.sft_trainer  # noqa: F401
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return 0
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_bytes("VmRSS")


def _peak_bytes() -> int:
    import torch

    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    """A line of /proc/self/status, in bytes. Raises StageError where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        raise StageError("probe", found="no /proc/self/status", expected="Linux, or a GPU") from None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
