"""A run on the random base, with texts made up here; and what is measured of each step and each stage."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROWS_A_STEP = 8  # sequences in an optimizer step, on both sides
NUM_PROMPTS = 32
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is computed at a shape. `length` and `new` are in tokens."""

    length: int
    steps: int
    new: int


SIZES = {"7b": Size(length=1024, steps=5, new=128), "1b": Size(256, 3, 16), "tiny": Size(96, 3, 8)}


class Texts:
    """Made-up texts, the same at each call, about as long as asked for."""

    def __init__(self, size: Size) -> None:
        from tiny import WORDS

        draw = random.Random(0)  # noqa: S311 - made-up texts

        def say(tokens: float) -> str:
            return " ".join(draw.choice(WORDS) for _ in range(max(2, int(tokens / 1.7))))

        length, steps = size.length, size.steps
        self.demonstrations: list[Row] = [
            {"prompt": f"{i} {say(16)}", "response": say(length * 0.6)} for i in range(steps * ROWS_A_STEP + 2)
        ]
        self.pairs: list[Row] = [
            {"prompt_id": str(i), "id": f"{i}/0", "split": "train", "weight": 1.0}
            | {"prompt": [{"role": "user", "content": f"{i} {say(16)}"}]}
            | {"chosen": say(length * 0.4), "rejected": say(length * 0.4)}
            for i in range(steps * ROWS_A_STEP // 2)
        ]
        self.short = [{"prompt": f"{i} {say(4)}", "response": say(12)} for i in range(26)]
        self.prompts = [{"prompt": f"{i} {say(48)}"} for i in range(NUM_PROMPTS)]

    def rows_of(self, part: str) -> list[Row]:
        """The sequences that a training part sees: demonstrations, or both answers of each pair."""
        if part == "sft":
            return self.demonstrations[:-2]  # two are held out
        return [{"response": pair[side]} for pair in self.pairs for side in ("chosen", "rejected")]


def tokens_a_step(tokenizer: Any, part: str, size: Size) -> float:
    """Real tokens of the answers in one optimizer step, the same on both sides."""
    texts = [row["response"] for row in Texts(size).rows_of(part)]
    counted = sum(len(ids) for ids in tokenizer(texts)["input_ids"])
    return ROWS_A_STEP * counted / len(texts)


class Workbench:
    """A run in `folder` on the base in `base`. `start` keeps its short SFT from one part to the next."""

    def __init__(self, folder: Path, base: Path, shape: str) -> None:
        from trueup.run.artifacts import write_jsonl

        self.folder, self.base, self.size = folder, base, SIZES[shape]
        self.texts = Texts(self.size)
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "short.jsonl", self.texts.short)
        write_jsonl(folder / "long.jsonl", self.texts.demonstrations)
        write_jsonl(folder / "prompts.jsonl", self.texts.prompts)

    def pipeline(self, demonstrations: str = "short.jsonl", method: str = "dpo") -> Any:
        """The run; its optimizer steps hold eight sequences, at most `length` tokens each, checkpointed."""
        from trueup.run.pipeline import Pipeline
        from trueup.run.run_file import load
        from trueup.stages import STAGES

        size = self.size
        trains = (
            f"num_train_epochs: 1, gradient_accumulation_steps: 4, gradient_checkpointing: true, "
            f"max_length: {size.length}, save_steps: 100, per_device_train_batch_size"
        )
        name = f"{method}-{demonstrations.partition('.')[0]}"
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"name: {name}\nmethod: {method}\nmodel: {{base: {self.base}}}\n"
            f"data: {{demonstrations: {demonstrations}, prompts: prompts.jsonl, held_out: prompts.jsonl}}\n"
            f"sft: {{{trains}: 2, held_out_fraction: 0.01, learning_rate: 0.002}}\n"
            f"reward: {{{trains}: 1}}\ndpo: {{{trains}: 1}}\n"
            f"sample: {{num_completions: 1, max_new_tokens: {size.new}, batch_size: {NUM_PROMPTS}}}\n"
            f"ppo: {{num_steps: 2, rollout_batch_size: 16, max_new_tokens: {size.new}, micro_batch_size: 4, "
            "num_ppo_epochs: 2, kl_coef: 0.0, gradient_checkpointing: true}\n"
            f"export: {{to: 'adapter,merged', num_prompts: 4}}\n",
            encoding="utf-8",
        )
        return Pipeline(load(path, {stage.name: stage.config for stage in STAGES}), STAGES, self.folder / "runs")

    def begun(self, kept: Path, method: str = "dpo") -> Any:
        """The run with a short SFT behind it, and pairs as people would have given them."""
        from trueup.run.artifacts import Feedback

        made = self.pipeline(method=method)
        sft = made.path("sft")
        if kept.exists() and not sft.exists():
            shutil.copytree(kept, sft)
        made.execute("sft")
        if not kept.exists():
            shutil.copytree(sft, kept)
        files = {"annotations.jsonl": [], "pairs.jsonl": self.texts.pairs, "rows.jsonl": []}
        self.put(made, "collect", files, Feedback)
        return made

    @staticmethod
    def put(pipeline: Any, name: str, files: dict[str, list[Row]], kind: Any) -> None:
        """A complete artifact of a stage that people, or a long sampling, would have made."""
        from trueup.run.artifacts import write_json, write_jsonl

        target = pipeline.path(name)
        target.mkdir(parents=True, exist_ok=True)
        for file, rows in files.items():
            write_jsonl(target / file, rows)
        fingerprint = kind(target).fingerprint()
        write_json(target / "record.json", {"stage": name, "fingerprint": fingerprint, "metrics": {}, "wall_s": 0})


def now() -> float:
    """Seconds, once the device has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def forget_peak() -> None:
    """From here on the peak is another."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> dict[str, float]:
    """The most memory since the last `forget_peak`, GB: what tensors took, and what torch held for them."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_tensors_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3),
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 3),
    }


def step_timer() -> list[float]:
    """Seconds of each optimizer step of every trainer that is made from here on, in a list that grows."""
    from transformers import TrainerCallback
    from transformers import trainer as module

    times: list[float] = []

    class Timer(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = now()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(now() - self.began)

    module.DEFAULT_CALLBACKS.append(Timer)
    return times


def speed(times: list[float], tokens: float) -> dict[str, float]:
    """The median step but for the first, which warms up."""
    rest = sorted(times[1:] or times)
    step = rest[len(rest) // 2]
    return {
        "steps": len(times),
        "first_step_s": round(times[0], 3),
        "step_s": round(step, 4),
        "tokens_per_s": round(tokens / step, 1),
    }
