"""reward: (Adapter, Feedback) -> RewardModel. An adapter with a score head on the 4-bit base, started from SFT."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from trueup.planning import loads
from trueup.run.artifacts import Adapter, Feedback, RewardModel
from trueup.run.run_file import RunFile
from trueup.run.section import TrainerSection
from trueup.run.stage import FITS_BY, Context, Metrics, Stage


class Config(TrainerSection):
    """The training of the reward model on pairs and thumbs. Most keys are those of trl.RewardConfig."""

    arguments_of = "trl.trainer.reward_config.RewardConfig"
    set_elsewhere: ClassVar = {"center_rewards_coefficient": "thumbs say where 0 is, and nothing else does"}

    learning_rate: PositiveFloat = 1e-4
    """The learning rate of AdamW at the first step, without a unit; it falls linearly to 0."""
    num_train_epochs: PositiveFloat = 1
    """Passes over the pairs (epochs)."""
    per_device_train_batch_size: PositiveInt = 4
    """Pairs in memory at once."""
    gradient_accumulation_steps: PositiveInt = 2
    """Batches of `per_device_train_batch_size` pairs that make one optimizer step."""
    max_length: PositiveInt = 512
    """The maximum length of prompt and answer together, on either side of a pair, in tokens; longer pairs are left out
    and counted."""
    kind: Literal["lora", "head"] = "lora"
    """What is trained: `lora`, an adapter and a score head; `head`, a score head alone on the policy as it is, by
    logistic regression whose penalty is cross-validated, for few labels and in less time."""
    disputed_pairs: Literal["weight", "scale", "soft"] = "weight"
    """How a pair counts on which people disagree, by its margin, the share of people for it minus the share against:
    `weight`, its loss times the margin; `scale`, the difference of its scores times the margin (GDPO); `soft`, a label
    on both sides (conservative DPO)."""
    thumbs_weight: NonNegativeFloat = 0.3
    """The weight of each single thumb beside the pairs, those of one prompt weighing 1 together, without a unit; each
    person has a threshold, which is learned. 0 trains on pairs alone."""


def run(config: Config, context: Context, policy: Adapter, feedback: Feedback) -> Metrics:
    """Minimize the loss of the training pairs and thumbs; measure accuracy on held-out prompts."""
    from datasets import Dataset
    from trl import RewardConfig

    from trueup.chat import rows as token_rows
    from trueup.chat.template import Chat
    from trueup.evaluation import intervals
    from trueup.training import common, counting, frozen_head, passes, steps, thresholds
    from trueup.training.losses import mean_one
    from trueup.training.trainers import WeightedRewardTrainer

    args = common.arguments(RewardConfig, context, config, ours=("kind", "disputed_pairs", "thumbs_weight"))
    singles, held_out_singles = (counting.thumbs_in(feedback.rows(split)) for split in ("train", "held_out"))
    train, apart = (counting.disputed(feedback.pairs(split), config.disputed_pairs) for split in ("train", "held_out"))
    thumbs, people = counting.single(singles if config.thumbs_weight else [], config.thumbs_weight)
    counting.refuse_one_sided(train, thumbs)
    everything = [row for split in ("train", "held_out") for row in feedback.rows(split)]
    aside = {
        "pairs": {"held out": len(apart)},
        "thumbs": {"held out": len(held_out_singles)} | counting.no_thumbs(everything),
    }
    model, tokenizer = common.load_policy(context, policy, num_labels=1)
    chat = Chat(tokenizer)
    paired, held_out = (token_rows.pairs(chat, some, config.max_length, whole=True) for some in (train, apart))
    alone = token_rows.scored(chat, thumbs, config.max_length)
    prepared = token_rows.together(paired, alone)
    prepared.refuse("reward")
    trainer = WeightedRewardTrainer(
        model=model,
        processing_class=tokenizer,
        args=args,
        train_dataset=Dataset.from_list(mean_one(prepared.rows)),
        eval_dataset=Dataset.from_list(held_out.rows) if held_out.rows else None,
    )
    if people:
        thresholds.install(trainer.model, len(people))

    def accuracy(trainer: Any) -> Metrics:
        if not held_out.rows:
            return {}
        right = intervals.wins(*passes.scores_of_pairs(trainer, trainer.eval_dataset))
        prompts = [name.rsplit("/", 1)[0] for name in trainer.eval_dataset["id"]]
        return {
            "held_out_accuracy": sum(right) / len(right),  # over pairs
            "held_out_accuracy_by_prompt": intervals.win_rate(right, prompts),
        }

    found: list[float] = []

    def save(model: Any, out: Path) -> None:
        if people:
            found.extend(thresholds.take(model))
        common.save_adapter(model, out)

    metrics = steps.train(
        trainer,
        context,
        prepared=prepared,
        start=policy,
        weighted=True,
        learn=frozen_head.learn if config.kind == "head" else None,
        measure=accuracy,
        save=save,
    )
    return metrics | {
        "num_pairs": len(paired.rows),
        "num_thumbs": len(alone.rows),
        "thresholds": dict(zip(people, found, strict=True)),
        "became": counting.became(train, singles, paired.rows, alone.rows, aside),
        "num_dropped_too_long": len(prepared.found.ids.get("too_long", [])),
        "num_held_out": len(held_out.rows),
        "num_held_out_left_out": held_out.total - len(held_out.rows),
    }


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How often the reward model is right on held-out prompts, and whether that is shown to be better than chance."""
    number, accuracy = metrics["num_held_out"], metrics.get("held_out_accuracy")
    alone = f" and {thumbs:,} thumbs" if (thumbs := metrics.get("num_thumbs")) else ""
    trained = f"{metrics['num_pairs']:,} pairs{alone} trained"
    unused = metrics.get("became", {}).get("thumbs", {}).get("nothing", 0)
    without = [f"{unused:,} thumbs taught it nothing: they are in no pair (see reward.thumbs_weight)"] if unused else []
    if accuracy is None:
        return [trained, *without, "warning: no pair is held out: nothing says how good it is"]
    by_prompt = metrics.get("held_out_accuracy_by_prompt")
    if by_prompt is None:  # a record of an earlier version
        return [f"{trained}; right on {accuracy:.1%} of {number:,} held-out pairs"]
    low, high = by_prompt["low"], by_prompt["high"]
    chance = [f"warning: {number:,} held-out pairs do not show that it is better than chance"] if low <= 0.5 else []
    return [
        f"{trained}; right on {accuracy:.1%} of {number:,} held-out pairs "
        f"(95 % interval {low:.1%} to {high:.1%}, by prompt)",
        *without,
        *chance,
    ]


STAGE = Stage(
    name="reward",
    config=Config,
    makes=RewardModel,
    run=run,
    needs={"policy": "sft", "feedback": "collect"},
    help="A reward model, as an adapter on the same base.",
    batch="per_device_train_batch_size",
    fits_by=FITS_BY,
    length="max_length",
    plan=loads.scored_pairs,
    two_steps={"num_train_epochs": 1},
    says=says,
)
