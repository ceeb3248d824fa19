"""Reward modelling against plain TRL on the same 4-bit base: pairs/s, bytes of weights, peak RSS. Last line: JSON.

SmolLM2-135M, NF4 + LoRA r=16 on all linear layers, human pairs (hh helpful-base) of at most 512 tokens, 4 pairs x 4 a
step, the same pairs and number of steps. Timed: everything from loading the model to the last step; ours starts from
an SFT adapter and also saves.

    python benchmarks/reward.py [--pairs 32] [--max-length 512] [--in-order]
"""

import time
from pathlib import Path
from typing import Any

import common
import pairs

RATE = 1e-4


def ours(folder: Path, max_length: int) -> dict[str, Any]:
    from trueup.stages import reward

    config = reward.Config(
        learning_rate=RATE,
        num_train_epochs=1,
        per_device_train_batch_size=pairs.BATCH,
        gradient_accumulation_steps=pairs.ACCUMULATION,
        max_length=max_length,
    )
    return pairs.ours(reward, config, folder)


def peer(folder: Path, max_length: int) -> dict[str, Any]:
    import plain_trl
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    from trueup.models import base

    rows = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in pairs.rows(folder)]
    began = time.monotonic()
    tokenizer, model = base.load_tokenizer(common.BASE), plain_trl.model(num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = RewardTrainer(
        model=model,
        processing_class=tokenizer,
        args=RewardConfig(
            **plain_trl.arguments(pairs.BATCH, pairs.ACCUMULATION, learning_rate=RATE), max_length=max_length
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(**plain_trl.LORA, task_type="SEQ_CLS"),
    )
    dtype = base.compute_dtype()  # TRL rounds the head to bf16, which an fp32 model cannot run
    trainer.model.get_base_model().score.to(dtype)
    return plain_trl.trained(trainer, began)


if __name__ == "__main__":
    pairs.main("reward", __doc__, {"ours": ours, "peer": peer, "script": __file__})
