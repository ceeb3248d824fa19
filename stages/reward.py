"""reward: (Adapter, Feedback) -> RewardModel. An adapter with a score head on the 4-bit base, started from SFT."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from trueup.planning import loads
from trueup.run.artifacts import Adapter, Feedback, RewardModel
from trueup.run.run_file import RunFile
from trueup.run.section import TrainerSection
from trueup.run.stage import FITS_BY, Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.training.ensemble import Members, Scored

SIDES = ("chosen_ids", "rejected_ids")


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
    members: PositiveInt = 1
    """Reward models that are trained and combined as `combine` of `ppo` and `grpo` says: of kind `head` from draws of
    the prompts, with replacement, in one forward pass; of kind `lora` from other seeds, each in the time of one."""
    disputed_pairs: Literal["weight", "scale", "soft"] = "weight"
    """How a pair counts on which people disagree, by its margin, the share of people for it minus the share against:
    `weight`, its loss times the margin; `scale`, the difference of its scores times the margin (GDPO); `soft`, a label
    on both sides (conservative DPO)."""
    thumbs_weight: NonNegativeFloat = 0.3
    """The weight of each single thumb beside the pairs, those of one prompt weighing 1 together, without a unit; each
    person has a threshold, which is learned. 0 trains on pairs alone."""


def run(config: Config, context: Context, policy: Adapter, feedback: Feedback) -> Metrics:
    """Minimize the loss of the training pairs and thumbs; measure accuracy on held-out prompts.

    Several members of kind `lora` are trained one after another, each with a seed of its own.
    """
    if config.kind == "head" or config.members == 1:
        return _train(config, context, policy, feedback)[0]
    from trueup.evaluation.held_out import accuracy
    from trueup.training import ensemble

    found, made, scores = ensemble.train(config.members, context, lambda part: _train(config, part, policy, feedback))
    told = ("train_loss", "num_steps", "resumed_from_step", "thresholds")
    metrics = found[0] | {
        "train_s": round(sum(one["train_s"] for one in found), 1),
        "trained": [{name: one[name] for name in told} for one in found],
    }
    return metrics | ({} if made is None else accuracy(made.sides(scores), scores[0].prompts))


def _train(config: Config, context: Context, policy: Adapter, feedback: Feedback) -> tuple[Metrics, Scored]:
    """One adapter with its head, or all heads on the frozen policy; of several adapters also the scores of this one."""
    from datasets import Dataset
    from trl import RewardConfig

    from trueup.chat import rows as token_rows
    from trueup.chat.template import Chat
    from trueup.evaluation.held_out import accuracy
    from trueup.models import scoring
    from trueup.training import common, counting, ensemble, frozen_head, passes, steps, thresholds
    from trueup.training.losses import mean_one
    from trueup.training.trainers import WeightedRewardTrainer

    args = common.arguments(RewardConfig, context, config, ours=("kind", "members", "disputed_pairs", "thumbs_weight"))
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

    heads: list[Members] = []  # of several on the frozen policy
    scored: list[Scored] = []  # of one of several adapters
    found: list[float] = []

    def measure(trainer: Any) -> Metrics:
        names = [row["id"].rsplit("/", 1)[0] for row in held_out.rows]
        if heads and names:
            each = [[row[side] for row in held_out.rows] for side in SIDES]
            return accuracy([frozen_head.scores_of(trainer, heads[0], answers) for answers in each], names)
        sides = passes.scores_of_pairs(trainer, trainer.eval_dataset) if names else ([], [])
        if config.members > 1 and not heads:
            scored.append(ensemble.Scored(passes.scores_of_answers(trainer), *sides, names))
            return {}
        return accuracy([[side] for side in sides], names)

    def save(model: Any, out: Path) -> None:
        if people:
            found.extend(thresholds.take(model))
        common.save_adapter(model, ensemble.folder(context))
        for made in heads:
            scoring.save_members(out, made.weight, made.mean, made.spread)

    metrics = steps.train(
        trainer,
        context,
        prepared=None if context.part else prepared,  # what the first member trains on has been looked at
        start=policy,
        weighted=True,
        learn=partial(frozen_head.learn, number=config.members, keep=heads.append) if config.kind == "head" else None,
        measure=measure,
        save=save,
    )
    metrics |= {
        "num_pairs": len(paired.rows),
        "num_thumbs": len(alone.rows),
        "thresholds": dict(zip(people, found, strict=True)),
        "became": counting.became(train, singles, paired.rows, alone.rows, aside),
        "num_dropped_too_long": len(prepared.found.ids.get("too_long", [])),
        "num_held_out": len(held_out.rows),
        "num_held_out_left_out": held_out.total - len(held_out.rows),
    }
    return metrics, scored[0] if scored else ensemble.Scored([], [], [], [])


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
    if each := metrics.get("members_accuracy"):
        without.insert(
            0,
            f"it is the mean of {len(each)} members, each right on {min(each):.1%} to {max(each):.1%} of them; "
            f"all prefer the same answer in {metrics['members_agree']:.1%}",
        )
    if by_prompt is None:  # a record of an earlier version
        return [f"{trained}; right on {accuracy:.1%} of {number:,} held-out pairs"]
    low, high = by_prompt["low"], by_prompt["high"]
    chance = [f"warning: {number:,} held-out pairs do not show that it is better than chance"] if low <= 0.5 else []
    return [
        f"{trained}; right on {accuracy:.1%} of {number:,} held-out pairs "
        f"(95% interval {low:.1%} to {high:.1%}, by prompt)",
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
    two_steps={"num_train_epochs": 1, "members": 1},
    says=says,
)
