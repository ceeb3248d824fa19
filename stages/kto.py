"""kto: (Adapter, Feedback) -> Adapter. Every thumb trains, paired or not; the reference is the SFT policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from trueup import ranks
from trueup.planning import loads
from trueup.run.artifacts import Adapter, Feedback
from trueup.run.run_file import RunFile
from trueup.run.section import AlignmentSection, TrainerSection
from trueup.run.stage import Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths


class Config(AlignmentSection, TrainerSection):
    """Alignment by KTO on single judgements. The keys are those of trl.KTOConfig."""

    arguments_of = "trl.trainer.kto_config.KTOConfig"
    set_elsewhere: ClassVar = {
        "loss_type": "the loss is eq. 8 of Ethayarajh et al. 2024, each row with its weight",
        "desirable_weight": "weights are measured, by eq. 9 of Ethayarajh et al. 2024",
        "undesirable_weight": "weights are measured, by eq. 9 of Ethayarajh et al. 2024",
    }

    beta: PositiveFloat = 0.1
    """The KL coefficient, without a unit: the larger it is, the nearer the policy stays to the reference."""
    learning_rate: PositiveFloat = 5e-5
    """The learning rate of AdamW at the first step, without a unit; it falls linearly to 0."""
    num_train_epochs: PositiveFloat = 1
    """Passes over the judged answers (epochs)."""
    per_device_train_batch_size: int = Field(default=8, ge=2)
    """Judged answers in memory at once; at least 2, since the KL divergence is estimated from neighbours in a batch."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches of `per_device_train_batch_size` judged answers that make one optimizer step."""
    max_length: PositiveInt = 512
    """The maximum length of prompt and answer together, in tokens; longer ones are cut there and counted, and left out
    where nothing of the answer remains."""


def run(config: Config, context: Context, policy: Adapter, feedback: Feedback) -> Metrics:
    """Minimize eq. 8 of Ethayarajh et al. 2024 after the reference proof; save the adapter."""
    from datasets import Dataset
    from trl import KTOConfig

    from trueup.chat import rows as token_rows
    from trueup.chat.template import Chat
    from trueup.feedback.preferences import kto_weights
    from trueup.training import common, steps
    from trueup.training.trainers import WeightedKTOTrainer

    args = common.arguments(KTOConfig, context, config)
    model, tokenizer = common.load_policy(context, policy)
    prepared = token_rows.thumbs(Chat(tokenizer), feedback.rows("train"), config.max_length)
    prepared.refuse("kto")
    up, down = (sum(row["weight"] for row in prepared.rows if row["label"] is side) for side in (True, False))
    desirable, undesirable = kto_weights(up, down)
    rows = [row | {"weight": row["weight"] * (desirable if row["label"] else undesirable)} for row in prepared.rows]
    rows = token_rows.with_mismatched(rows, config.per_device_train_batch_size * ranks.count())
    trainer = WeightedKTOTrainer(
        model=model,
        processing_class=tokenizer,
        args=args,
        train_dataset=Dataset.from_list(rows),
    )
    metrics = steps.train(
        trainer,
        context,
        prepared=prepared,
        start=policy,
        reference=policy,
        first_loss=0.5,
        weighted=True,
        probe=[one for (one,) in prepared.encoded],
    )
    return metrics | {
        "desirable_weight": desirable,
        "undesirable_weight": undesirable,
        "num_rows": len(rows),
        "num_desirable": sum(row["label"] for row in rows),
    }


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How much was trained on, for how long, and where the loss went."""
    return [
        f"{metrics['num_rows']:,} rows trained in {metrics['num_steps']:,} steps; loss "
        f"{metrics['reference_proof']['first_loss']:.3f} at first, {metrics['train_loss']:.3f} on average"
    ]


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    length = values["max_length"]
    load = loads.Load(
        rows=values["per_device_train_batch_size"],
        tokens=length,
        shared=min(lengths.shared_tokens, length),
        labelled=length,
        num_adapters=2,
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
        offloads=values["activation_offloading"],
        accumulates=values["gradient_accumulation_steps"] > 1,
        optim=values["optim"],
    )
    answers = (lengths.num_prompts or loads.FALLBACK_ROWS) * loads.section_value(run, "sample", "num_completions")
    tokens = answers * loads.dialogue(lengths, run, length) * values["num_train_epochs"]
    return load, loads.Work(trained_tokens=tokens, read_tokens=3 * tokens)  # reference, and both on mismatched answers


STAGE = Stage(
    name="kto",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "policy", "feedback": "collect"},
    says=says,
    help="Align by single thumbs: Kahneman-Tversky optimization.",
    batch="per_device_train_batch_size",
    apart=("keep_checkpoints",),
    length="max_length",
    smallest_batch=lambda values: 2,
    plan=plan,
    two_steps={"num_train_epochs": 1},
)
