"""Build stages of a tiny run on the emulated device, in a process that `emulated.run` starts.

Takes `folder`, `capability`, `checkpointing` (the stages that do), `left_out` (the stages that are not built), `set`
(overrides of the run file), `count` (of GPUs) and `started` (whether CUDA starts before trueup can hide one). Reports
of each stage its metrics, its launches, and the syncs of its last optimizer step, by line. A run that is there goes on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import pretend
import torch

STAGES = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")
RUN = """name: f
model: {{base: {base}}}
adapter: {{r: 4, lora_alpha: 8}}
data: {{demonstrations: d.jsonl, prompts: p.jsonl, held_out: h.jsonl, preferences: c.jsonl}}
sft: {{learning_rate: 0.01, num_train_epochs: 2, save_steps: 2, max_length: 48}}
sample: {{num_completions: 2, max_new_tokens: 6}}
reward: {{learning_rate: 0.001, num_train_epochs: 1, save_steps: 2}}
dpo: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
kto: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
ppo: {{num_steps: 2, rollout_batch_size: 8, max_new_tokens: 6, micro_batch_size: 4, num_ppo_epochs: 1, save_steps: 1}}
grpo: {{max_steps: 2, num_generations: 4, per_device_train_batch_size: 8, max_completion_length: 6, save_steps: 1}}
evaluate: {{num_completions: 1, max_new_tokens: 6}}
"""


def make(folder: Path) -> None:
    """A run of the tiny Llama of tests/tiny.py, with demonstrations, prompts and preferences."""
    from tiny import WORDS, make_model

    from trueup.run.artifacts import write_jsonl

    folder.mkdir(parents=True, exist_ok=True)
    make_model(folder / "model")
    asked = [f"{a} {b}" for a in WORDS for b in WORDS]
    rows = [{"prompt": q, "response": f"glad {q}"} for q in asked[:40]]
    rows[0]["response"] *= 40  # a long one, which is cut
    write_jsonl(folder / "d.jsonl", rows)
    write_jsonl(folder / "p.jsonl", [{"prompt": q} for q in asked[40:48]])
    write_jsonl(folder / "h.jsonl", [{"prompt": q} for q in asked[48:52]])
    pairs = [{"prompt": q, "chosen": WORDS[i % 5], "rejected": "no"} for i, q in enumerate(asked[60:84])]
    write_jsonl(folder / "c.jsonl", pairs)
    (folder / "run.yaml").write_text(RUN.format(base=folder / "model"))


def count_steps(gpu: pretend.Device) -> Counter[tuple[str, str]]:
    """From now on, the syncs of the last optimizer step of whatever trains: a trainer's step, or an update of PPO."""
    import transformers.trainer

    from trueup.online.ppo import loop

    last: Counter[tuple[str, str]] = Counter()
    before: Counter[tuple[str, str]] = Counter()

    def begin() -> None:
        before.clear()
        before.update(gpu.syncs)

    def end() -> None:
        last.clear()
        last.update(gpu.syncs - before)

    class Steps(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *unused: Any, **kwargs: Any) -> None:
            begin()

        def on_step_end(self, *unused: Any, **kwargs: Any) -> None:
            end()

    def counted(usual: Callable[..., Any]) -> Callable[..., Any]:
        def update(*args: Any, **kwargs: Any) -> Any:
            begin()
            found = usual(*args, **kwargs)
            end()
            return found

        return update

    transformers.trainer.DEFAULT_CALLBACKS.append(Steps)
    loop.update = counted(loop.update)
    return last


def metrics(pipeline: Any, stage: str) -> dict[str, Any]:
    """Those of a stage that is built."""
    found: dict[str, Any] = json.loads((pipeline.path(stage) / "record.json").read_text())["metrics"]
    return found


def main() -> None:
    given = emulated.given()
    folder = Path(given["folder"])
    gpu = pretend.install(tuple(given["capability"]), given.get("count", 1))
    if given.get("started"):
        torch.cuda.init()
    from tiny import open_run

    if not (folder / "run.yaml").exists():
        make(folder)
    checkpointed = [f"{stage}.gradient_checkpointing=true" for stage in given.get("checkpointing", ())]
    pipeline = open_run(folder, *checkpointed, *given.get("set", ()))
    last_step = count_steps(gpu)
    found: dict[str, Any] = {}
    for stage in (stage for stage in STAGES if stage not in given.get("left_out", ())):
        last_step.clear()
        with gpu.measured() as counts:
            pipeline.execute(stage)
        found[stage] = {
            "metrics": metrics(pipeline, stage),
            "launches": counts.launches.total(),
            "syncs_of_a_step": [[kind, line, number] for (kind, line), number in last_step.items()],
        }
    emulated.report(found)


if __name__ == "__main__":
    main()
