"""dpo: (Adapter, Feedback) -> Adapter. The policy it starts from is the reference."""

import math
from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from trueup.errors import ConfigError
from trueup.planning import loads
from trueup.run.artifacts import Adapter, Feedback
from trueup.run.run_file import RunFile
from trueup.run.section import AlignmentSection, TrainerSection
from trueup.run.stage import FITS_BY, Context, Metrics, Stage


class Config(AlignmentSection, TrainerSection):
    """Alignment by DPO on pairs. The keys are those of trl.DPOConfig."""

    arguments_of = "trl.trainer.dpo_config.DPOConfig"
    set_elsewhere: ClassVar = dict.fromkeys(
        (
            "loss_weights",
            "label_smoothing",
            "f_divergence_type",
            "f_alpha_divergence_coef",
            "discopop_tau",
            "ld_alpha",
            "use_weighting",
            "sync_ref_model",
        ),
        "the loss is eq. 7 of Rafailov et al. 2023, each pair with its weight",
    )

    beta: PositiveFloat = 0.1
    """The KL coefficient, without a unit: the larger it is, the nearer the policy stays to the reference."""
    learning_rate: PositiveFloat = 5e-5
    """The learning rate of AdamW at the first step, without a unit; it falls linearly to 0."""
    num_train_epochs: PositiveFloat = 2
    """Passes over the pairs (epochs)."""
    per_device_train_batch_size: PositiveInt = 4
    """Pairs in memory at once."""
    gradient_accumulation_steps: PositiveInt = 2
    """Batches of `per_device_train_batch_size` pairs that make one optimizer step."""
    max_length: PositiveInt = 512
    """The maximum length of prompt and answer together, on either side of a pair, in tokens; longer ones are cut there
    and counted, and left out where nothing of an answer remains."""
    disputed_pairs: Literal["weight", "scale", "soft"] = "weight"
    """How a pair counts on which people disagree, by its margin, the share of people for it minus the share against:
    `weight`, its loss times the margin; `scale`, the difference of its log-ratios times the margin (GDPO); `soft`, a
    label on both sides (conservative DPO)."""
    rounds: Literal["last", "all"] = "last"
    """Whose pairs a later round trains on: `last`, its own; `all`, those of the rounds before as well, which moves the
    policy further (see docs/rounds.md)."""


def run(config: Config, context: Context, policy: Adapter, feedback: Feedback, **earlier: Feedback) -> Metrics:
    """Minimize eq. 7 of Rafailov et al. 2023 after the reference proof; save the adapter.

    `earlier` has the judgements of the rounds before, the first of them first, where they train as well.
    """
    from datasets import Dataset
    from trl import DPOConfig

    from trueup.chat import rows as token_rows
    from trueup.chat.template import Chat
    from trueup.training import common, counting, steps
    from trueup.training.losses import mean_one
    from trueup.training.trainers import WeightedDPOTrainer

    args = common.arguments(
        DPOConfig, context, config, ours=("disputed_pairs", "rounds"), precompute_ref_log_probs=False
    )
    if args.loss_type != ["sigmoid"]:
        raise ConfigError(
            "dpo.trainer.loss_type",
            found=", ".join(args.loss_type),
            expected="sigmoid: pairs are weighted, and TRL's other losses know no weights",
            next_step="leave loss_type out",
        )
    judged, of_rounds = counting.of_rounds([*earlier.values(), feedback])
    pairs = mean_one(counting.disputed(judged, config.disputed_pairs))
    model, tokenizer = common.load_policy(context, policy)
    prepared = token_rows.pairs(Chat(tokenizer), pairs, config.max_length)
    prepared.refuse("dpo")
    rows = mean_one(prepared.rows)
    trainer = WeightedDPOTrainer(
        model=model,  # no ref_model: TRL freezes a copy of this adapter, on the same base
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
        precomputes=True,
        first_loss=math.log(2),
        weighted=True,
        probe=[chosen for chosen, _ in prepared.encoded],
    )
    return metrics | {"num_pairs": len(rows)} | ({"pairs_of_earlier_rounds": of_rounds} if earlier else {})


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How much was trained on, for how long, and where the loss went."""
    lines = [
        f"{metrics['num_pairs']:,} pairs trained in {metrics['num_steps']:,} steps; loss "
        f"{metrics['reference_proof']['first_loss']:.3f} at first, {metrics['train_loss']:.3f} on average"
    ]
    if counts := metrics.get("pairs_of_earlier_rounds"):
        lines.append(
            f"{counts['earlier']:,} pairs are of earlier rounds; of these rounds, {counts['held_out_now']:,} pairs of "
            f"prompts that are held out now, and {counts['compared_again']:,} that were compared again, are left out"
        )
    return lines


STAGE = Stage(
    name="dpo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "policy", "feedback": "collect"},
    all_rounds=("feedback",),
    says=says,
    help="Align by pairs: direct preference optimization.",
    batch="per_device_train_batch_size",
    apart=("keep_checkpoints",),
    fits_by=FITS_BY,
    length="max_length",
    plan=loads.pairs,
    two_steps={"num_train_epochs": 1},
)
