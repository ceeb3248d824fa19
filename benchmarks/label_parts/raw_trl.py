"""Raw TRL: its trainers as its documentation shows them, on pairs alone, all alike, from the same SFT policy.

TRL's own defaults hold for what is not named here. Checkpoints make a training that was stopped go on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from label_parts.features import Row

DEFAULTS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "lr_scheduler_type", "max_length")
SAVE_STEPS = 10


def base_of(sft: Path) -> str:
    """What the SFT adapter was trained on."""
    return str(json.loads((sft / "adapter_config.json").read_text())["base_model_name_or_path"])


def reward(context: Any, sft: Path, pairs: list[Row]) -> Row:
    """TRL's RewardTrainer; the adapter with its score head goes into the context's folder.

    Returns {steps, train_loss, settings, trainable_dtype}.
    """
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from trueup.chat.template import Chat
    from trueup.models import base
    from trueup.run.artifacts import Adapter
    from trueup.training import common

    model, tokenizer = common.load_policy(context, Adapter(sft), num_labels=1)
    rows = [
        {side: [*pair["prompt"], {"role": "assistant", "content": pair[side]}] for side in ("chosen", "rejected")}
        for pair in pairs
    ]
    args = RewardConfig(**_arguments(context))
    trainer = RewardTrainer(model=model, processing_class=tokenizer, args=args, train_dataset=Dataset.from_list(rows))
    ours = Chat(tokenizer).answer(pairs[0]["prompt"], pairs[0]["chosen"]).ids
    if list(trainer.train_dataset[0]["chosen_ids"]) != ours:
        raise SystemExit("TRL trains on other tokens than those that are scored")
    trainer.model.get_base_model().score.to(
        base.compute_dtype()
    )  # TRL rounds it to bf16, which an fp32 model cannot run
    return _trained(trainer, context)


def dpo(context: Any, sft: Path, pairs: list[Row], **like_ours: Any) -> Row:
    """TRL's DPOTrainer, beta 0.1 by its default, with the learning rate and epochs `like_ours`; as `reward`."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from trueup.run.artifacts import Adapter
    from trueup.training import common

    model, tokenizer = common.load_policy(context, Adapter(sft))
    rows = [
        {"prompt": pair["prompt"]}
        | {side: [{"role": "assistant", "content": pair[side]}] for side in ("chosen", "rejected")}
        for pair in pairs
    ]
    args = DPOConfig(**_arguments(context, **like_ours))
    trainer = DPOTrainer(model=model, processing_class=tokenizer, args=args, train_dataset=Dataset.from_list(rows))
    return _trained(trainer, context) | {"beta": args.beta}


def _arguments(context: Any, **more: Any) -> Row:
    """Nothing but the folder, the seed, this machine's device, and checkpoints; logs of every step.

    Gradient checkpointing, which TRL turns on, computes the same in more time.
    """
    import torch

    return {
        "output_dir": str(context.checkpoints),
        "seed": context.run.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_steps": SAVE_STEPS,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    } | more


def _trained(trainer: Any, context: Any) -> Row:
    from trueup.training import checkpoints, common

    kinds = {name: one.dtype for name, one in trainer.model.named_parameters() if one.requires_grad}
    load = trainer._load_from_checkpoint

    def load_as_built(*args: Any, **kwargs: Any) -> None:
        """peft makes fp32 of what it loads; TRL trains what it rounded to bf16."""
        load(*args, **kwargs)
        for name, one in trainer.model.named_parameters():
            if name in kinds:
                one.data = one.data.to(kinds[name])

    trainer._load_from_checkpoint = load_as_built
    trainer.add_callback(checkpoints.sealing_callback())
    settings = {name: getattr(trainer.args, name) for name in DEFAULTS}
    saved = checkpoints.latest_whole(context.checkpoints)
    if saved is not None and checkpoints.is_last(saved):
        trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    trainer.train(resume_from_checkpoint=None if saved is None else str(saved))
    common.save_adapter(trainer.model, context.out)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {
        "steps": int(trainer.state.global_step),
        "train_loss": sum(losses) / len(losses),
        "settings": settings | {"lr_scheduler_type": str(settings["lr_scheduler_type"])},
        "trainable_dtype": ", ".join(sorted({str(kind).removeprefix("torch.") for kind in kinds.values()})),
    }
