"""SFT against plain TRL on the same 4-bit base: tokens/s, bytes of weights, peak RSS. Last line: JSON.

SmolLM2-135M, NF4 + LoRA r=16 on all linear layers, human answers (dolly, 2,000 there) cut at 512 tokens, 8 rows x 2 a
step, the same rows and number of steps. Timed: everything from loading the model to the last step; ours also saves
checkpoint and adapter, and records the probe.

    python benchmarks/sft.py [--rows 65] [--max-length 512] [--in-order]
"""

import random
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import common

BATCH, ACCUMULATION, RATE = 8, 2, 2e-4


def examples(count: int) -> list[dict[str, Any]]:
    return common.rows_of("sft_dolly_open_qa.jsonl.gz", count)


def ours(count: int, max_length: int) -> dict[str, Any]:
    from trueup.run.artifacts import write_jsonl
    from trueup.run.run_file import load
    from trueup.run.stage import Context
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
        max_length=max_length,
        warmup_steps=0,
        held_out_fraction=1e-9,  # one row
    )
    (folder / "out").mkdir()
    common.import_libraries()
    began = time.monotonic()
    found = sft.run(config, Context(run=run, run_dir=folder, out=folder / "out"))
    seconds = time.monotonic() - began
    return {"seconds": seconds, "weights_bytes": found["weights_bytes"]} | {
        "losses": common.losses(folder / "out" / "checkpoints")
    }


def peer(count: int, max_length: int) -> dict[str, Any]:
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
    random.Random(0).shuffle(rows)  # noqa: S311 - as ours does, which holds the first out then
    common.import_libraries()
    began = time.monotonic()
    trainer = SFTTrainer(
        model=plain_trl.model(),
        processing_class=base.load_tokenizer(common.BASE),
        args=SFTConfig(
            **plain_trl.arguments(BATCH, ACCUMULATION, learning_rate=RATE),
            max_length=max_length,
            completion_only_loss=True,
        ),
        train_dataset=Dataset.from_list(rows[1:]),
        peft_config=LoraConfig(**plain_trl.LORA, task_type="CAUSAL_LM"),
    )
    return plain_trl.trained(trainer, began) | {"tokens": sum(map(len, trainer.train_dataset["input_ids"]))}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=65)
    asked, options = common.training_options(parser)
    if asked.side:
        common.say((ours if asked.side == "ours" else peer)(asked.rows, asked.max_length))
        return
    options += ["--rows", str(asked.rows)]
    them, us = (common.run(__file__, side, options) for side in ("peer", "ours"))
    rates = [side | {"rate": them["tokens"] / side["seconds"]} for side in (us, them)]
    common.compare("sft", "tokens/s", *rates)


if __name__ == "__main__":
    main()
