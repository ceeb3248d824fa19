"""SFT against plain TRL on the same 4-bit base: tokens/s, bytes of weights, peak RSS. Last line: JSON.

SmolLM2-135M, NF4 + LoRA r=16 on all linear layers, human answers (dolly, 2,000 there) cut at 512 tokens, 8 rows x 2 a
step, the same rows and number of steps. Timed: everything from loading the model to the last step; ours also saves
checkpoint and adapter, and records the probe.

    python benchmarks/sft.py [--rows 64]
"""

import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import common

BATCH, ACCUMULATION, MAX_LENGTH, RATE = 8, 2, 512, 2e-4


def examples(count: int) -> list[dict[str, Any]]:
    return common.rows_of("sft_dolly_open_qa.jsonl.gz", count)


def ours(count: int) -> dict[str, Any]:
    from trueup.artifacts import write_jsonl
    from trueup.config import load
    from trueup.stage import Context
    from trueup.stages import STAGES, sft

    folder = Path(mkdtemp())
    write_jsonl(folder / "d.jsonl", examples(count))
    (folder / "run.yaml").write_text(f"name: b\nmodel: {{base: '{common.BASE}'}}\ndata: {{demonstrations: d.jsonl}}\n")
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
    config = sft.Config(
        learning_rate=RATE,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        max_length=MAX_LENGTH,
        warmup_steps=0,
        held_out_fraction=1e-9,  # one row
    )
    (folder / "out").mkdir()
    began = time.monotonic()
    found = sft.run(config, Context(run=run, run_dir=folder, out=folder / "out"))
    return {key: found[key] for key in ("weights_bytes", "num_steps", "train_loss")} | {
        "seconds": time.monotonic() - began
    }


def peer(count: int) -> dict[str, Any]:
    import plain_trl
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from trueup.models import base

    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}]}
        | {"completion": [{"role": "assistant", "content": row["response"]}]}
        for row in examples(count)
    ]
    began = time.monotonic()
    trainer = SFTTrainer(
        model=plain_trl.model(),
        processing_class=base.load_tokenizer(common.BASE),
        args=SFTConfig(
            **plain_trl.arguments(BATCH, ACCUMULATION, learning_rate=RATE),
            max_length=MAX_LENGTH,
            completion_only_loss=True,
        ),
        train_dataset=Dataset.from_list(rows[1:]),  # ours holds one row out
        peft_config=LoraConfig(**plain_trl.LORA, task_type="CAUSAL_LM"),
    )
    return plain_trl.trained(trainer, began) | {"tokens": sum(map(len, trainer.train_dataset["input_ids"]))}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=65)
    asked = parser.parse_args()
    if asked.side:
        common.say((ours if asked.side == "ours" else peer)(asked.rows))
        return
    them, us = (common.run(__file__, side, ["--rows", str(asked.rows)]) for side in ("peer", "ours"))
    rates = [side | {"rate": them["tokens"] / side["seconds"]} for side in (us, them)]
    mean = sum(them["losses"]) / len(them["losses"])
    common.compare("sft", "tokens/s", *rates, {"train_loss": us["train_loss"], "peer_train_loss": mean})


if __name__ == "__main__":
    main()
