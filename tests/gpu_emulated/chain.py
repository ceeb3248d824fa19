"""Build stages of a tiny run on the emulated device, in a process that `emulated.run` starts.

Takes `folder`, `capability`, `checkpointing` and `stages` (by default all of them). Reports the metrics, the launches
and the syncs of each stage. A run that is there already goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import emulated
import pretend

STAGES = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")
TRAINED = ("sft", "reward", "dpo", "kto", "ppo", "grpo")
RUN = """name: f
model: {{base: {base}}}
adapter: {{r: 4, lora_alpha: 8}}
data: {{demonstrations: d.jsonl, prompts: p.jsonl, held_out: h.jsonl, preferences: c.jsonl}}
sft: {{learning_rate: 0.01, num_train_epochs: 2, save_steps: 2}}
sample: {{num_completions: 2, max_new_tokens: 6}}
reward: {{learning_rate: 0.001, num_train_epochs: 1, save_steps: 2}}
dpo: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
kto: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
ppo: {{num_steps: 2, rollout_batch_size: 8, max_new_tokens: 6, micro_batch_size: 4, save_steps: 1}}
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
    write_jsonl(folder / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in asked[:40]])
    write_jsonl(folder / "p.jsonl", [{"prompt": q} for q in asked[40:48]])
    write_jsonl(folder / "h.jsonl", [{"prompt": q} for q in asked[48:52]])
    pairs = [{"prompt": q, "chosen": WORDS[i % 5], "rejected": "no"} for i, q in enumerate(asked[60:84])]
    write_jsonl(folder / "c.jsonl", pairs)
    (folder / "run.yaml").write_text(RUN.format(base=folder / "model"))


def main() -> None:
    given = emulated.given()
    folder = Path(given["folder"])
    gpu = pretend.install(tuple(given["capability"]), given.get("count", 1))
    from tiny import open_run

    if not (folder / "run.yaml").exists():
        make(folder)
    checkpointed = [f"{stage}.gradient_checkpointing={str(given['checkpointing']).lower()}" for stage in TRAINED]
    pipeline = open_run(folder, *checkpointed, *given.get("set", ()))
    found: dict[str, Any] = {}
    for stage in given.get("stages", STAGES):
        with gpu.measured() as counts:
            pipeline.execute(stage)
        found[stage] = {
            "metrics": json.loads((pipeline.path(stage) / "record.json").read_text())["metrics"],
            "launches": counts.launches.total(),
            "syncs": [[kind, line, number] for (kind, line), number in counts.syncs.items()],
        }
    emulated.report(found)


if __name__ == "__main__":
    main()
