"""The shipped run files on the emulated device, in a process that `emulated.run` starts.

Each is run with a tiny base of its own family and a few short texts in place of the user's; its settings are its own,
but for the number of steps, the length of answers, and SFT's learning rate, which so few steps need. Takes `folder`,
`capability` and `files`; reports of each file the dtype that its base computed in, and the stages that ran.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import emulated
import pretend

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
FEW = (
    *("sft.learning_rate=0.02", "sft.num_train_epochs=4", "sft.gradient_accumulation_steps=2"),
    *("sample.num_completions=2", "sample.max_new_tokens=6", "evaluate.max_new_tokens=6", "evaluate.num_completions=1"),
    *("ppo.num_steps=1", "ppo.rollout_batch_size=4", "ppo.max_new_tokens=6", "export.num_prompts=2"),
)


def make(folder: Path, family: str) -> None:
    """A tiny base of a family in `folder`/model, with the texts that a run file names."""
    from tiny import WORDS, make_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from trueup.run.artifacts import write_jsonl

    make_model(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), num_key_value_heads=2, **SHAPE, **ids)
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder / "model")
    asked = [f"{a} {b}" for a in WORDS[:4] for b in WORDS]
    write_jsonl(folder / "demonstrations.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in asked[:16]])
    write_jsonl(folder / "prompts.jsonl", [{"prompt": q} for q in asked[16:20]])
    write_jsonl(folder / "held_out.jsonl", [{"prompt": q} for q in asked[20:22]])
    pairs = [{"prompt": q, "chosen": WORDS[i % 5], "rejected": "no"} for i, q in enumerate(asked[22:34])]
    write_jsonl(folder / "pairs.jsonl", pairs)


def dry_run(file: str, folder: Path) -> dict[str, Any]:
    """All stages of a run file; what its base computed in, and what its stages ran on."""
    from trueup.models import base
    from trueup.planning import shapes
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load
    from trueup.stages import STAGES

    sections = {stage.name: stage.config for stage in STAGES}
    family = shapes.of_table(load(CONFIGS / file, sections).model.base).family
    make(folder, family)
    texts = [f"data.{name}={folder / name}.jsonl" for name in ("demonstrations", "prompts", "held_out")]
    overrides = (f"model.base={folder / 'model'}", *texts, f"data.preferences={folder / 'pairs.jsonl'}", *FEW)
    run = load(CONFIGS / file, sections, overrides)
    pipeline = Pipeline(run, STAGES, folder / "runs", overrides)
    ran = [stage.name for stage in pipeline.order()]
    for name in ran:
        pipeline.execute(name)
    record = json.loads((pipeline.path("sft") / "record.json").read_text())
    dtype = str(base.compute_dtype(run.model.dtype)).removeprefix("torch.")
    return {"family": family, "dtype": dtype, "ran": ran, "device": record["device_name"]}


def main() -> None:
    given = emulated.given()
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    pretend.install(tuple(given["capability"]))
    emulated.report({file: dry_run(file, Path(given["folder"]) / file) for file in given["files"]})


if __name__ == "__main__":
    main()
