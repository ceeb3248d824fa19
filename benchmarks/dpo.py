"""DPO against plain TRL on the same 4-bit base and SFT adapter: pairs/s, bytes of weights, peak RSS. Last line: JSON.

SmolLM2-135M, NF4 + LoRA r=16 on all linear layers, human pairs (hh helpful-base) of at most 512 tokens, 4 pairs x 4 a
step, the same pairs and number of steps. Timed: everything from loading the model to the last step, reference
log-probabilities included; ours also proves the reference, saves, and records the probe.

    python benchmarks/dpo.py [--pairs 32] [--max-length 512] [--in-order]
"""

import time
from pathlib import Path
from typing import Any

import common
import pairs

RATE, BETA = 5e-5, 0.1


def ours(folder: Path, max_length: int) -> dict[str, Any]:
    from trueup.stages import dpo

    config = dpo.Config(
        beta=BETA,
        learning_rate=RATE,
        num_train_epochs=1,
        per_device_train_batch_size=pairs.BATCH,
        gradient_accumulation_steps=pairs.ACCUMULATION,
        max_length=max_length,
    )
    return pairs.ours(dpo, config, folder)


def peer(folder: Path, max_length: int) -> dict[str, Any]:
    import plain_trl
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer

    from trueup.models import base

    began = time.monotonic()
    trainer = DPOTrainer(
        model=PeftModel.from_pretrained(plain_trl.model(), str(folder / "policy"), is_trainable=True),
        processing_class=base.load_tokenizer(common.BASE),
        args=DPOConfig(
            **plain_trl.arguments(pairs.BATCH, pairs.ACCUMULATION, learning_rate=RATE),
            beta=BETA,
            max_length=max_length,
        ),
        train_dataset=Dataset.from_list(pairs.rows(folder)),
    )
    return plain_trl.trained(trainer, began)


if __name__ == "__main__":
    pairs.main("dpo", __doc__, {"ours": ours, "peer": peer, "script": __file__})
