"""orpo: (Adapter, Feedback) -> Adapter. A method that trueup does not have, written as docs/architecture.md says."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat, PositiveInt

from trueup.planning import loads
from trueup.run.artifacts import Adapter, Feedback
from trueup.run.run_file import RunFile
from trueup.run.section import AlignmentSection, TrainerSection
from trueup.run.stage import Context, Metrics, Stage


class Config(AlignmentSection, TrainerSection):
    """Field names are trl's ORPOConfig's own."""

    arguments_of = "trl.experimental.orpo.orpo_config.ORPOConfig"

    beta: PositiveFloat = 0.1  # of the odds ratio
    learning_rate: PositiveFloat = 5e-5
    num_train_epochs: PositiveFloat = 1
    per_device_train_batch_size: PositiveInt = 4
    gradient_accumulation_steps: PositiveInt = 1
    gradient_checkpointing: bool = False
    max_length: PositiveInt = 512  # tokens, prompt + completion
    save_steps: PositiveInt = 10


def run(config: Config, context: Context, policy: Adapter, feedback: Feedback) -> Metrics:
    """Minimize eq. 6 of Hong et al. 2024; it has no reference. Save the adapter."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from trueup.chat import rows as token_rows
    from trueup.chat.template import Chat
    from trueup.models import causal
    from trueup.training import common, steps
    from trueup.training.losses import mean_one

    class Trainer(ORPOTrainer):  # type: ignore[misc]
        """TRL's, on rows that are token ids, with log-probabilities of `models.causal`."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature

        def get_batch_loss_metrics(self, model: Any, batch: dict[str, Any], train_eval: str = "train") -> Any:
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
            logps = causal.token_logps(self.model, batch | {"labels": labels}).sum(1)
            chosen, rejected = (logps / (labels[:, 1:] != -100).sum(1)).chunk(2)
            losses = -chosen - self.odds_ratio_loss(chosen, rejected)[0]
            return (losses * batch["weight"].to(losses)).mean(), {}

    args = common.arguments(ORPOConfig, context, config, remove_unused_columns=False)
    model, tokenizer = common.load_policy(context, policy)
    prepared = token_rows.pairs(Chat(tokenizer), mean_one(feedback.pairs("train")), config.max_length)
    prepared.refuse("orpo")
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        args=args,
        train_dataset=Dataset.from_list(mean_one(prepared.rows)),
        data_collator=DataCollatorForPreference(tokenizer.pad_token_id, config.max_length),
    )
    metrics = steps.train(
        trainer,
        context,
        prepared=prepared,
        start=policy,
        weighted=True,
        probe=[chosen for chosen, _ in prepared.encoded],
    )
    return metrics | {"num_pairs": len(prepared.rows)}


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How much was trained on."""
    return [f"{metrics['num_pairs']:,} pairs trained in {metrics['num_steps']:,} steps"]


STAGE = Stage(
    name="orpo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "policy", "feedback": "collect"},
    says=says,
    help="Align by pairs without a reference: odds ratio preference optimization.",
    batch="per_device_train_batch_size",
    apart=("keep_checkpoints",),
    length="max_length",
    plan=loads.pairs,
    two_steps={"num_train_epochs": 1},
)
