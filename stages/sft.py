"""sft: (demonstrations) -> Adapter. Supervised fine-tuning, kept at its best held-out loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from trueup.errors import DataError
from trueup.planning import loads
from trueup.run import enough
from trueup.run.artifacts import Adapter
from trueup.run.run_file import RunFile
from trueup.run.section import TrainerSection
from trueup.run.stage import FITS_BY, Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths


class Config(TrainerSection):
    """Supervised fine-tuning on the demonstrations. The keys are those of trl.SFTConfig."""

    arguments_of = "trl.trainer.sft_config.SFTConfig"
    set_elsewhere: ClassVar = dict.fromkeys(
        ("loss_type", "label_smoothing_factor"), "the loss is the negative log-likelihood"
    )

    learning_rate: PositiveFloat = 3e-4
    """The learning rate of AdamW at its highest, without a unit: it rises for `warmup_steps` and then falls linearly to
    0."""
    num_train_epochs: PositiveFloat = 4
    """Passes over the demonstrations (epochs); the adapter of the epoch with the lowest held-out loss is kept (with
    AdaLoRA, that of the last)."""
    per_device_train_batch_size: PositiveInt = 8
    """Demonstrations in memory at once."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches of `per_device_train_batch_size` demonstrations that make one optimizer step."""
    max_length: PositiveInt = 512
    """The maximum length of a demonstration, prompt and answer together, in tokens; longer ones are cut there and
    counted, and left out where nothing of the answer remains."""
    warmup_steps: NonNegativeInt = 5
    """Optimizer steps in which the learning rate rises from 0 to `learning_rate`."""
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)
    """The share of the prompts whose demonstrations are not trained on, and measure the loss after each epoch."""


def run(config: Config, context: Context) -> Metrics:
    """Minimize the negative log-likelihood of the demonstrations' answers; save the best epoch's adapter.

    Starts from a fresh adapter, or from that of `adapter.start`.
    """
    from trueup.data import identify, read_demonstrations
    from trueup.data.leaks import leaks
    from trueup.data.report import ReadReport, tell
    from trueup.feedback.preferences import split_prompts

    rows = read_demonstrations(context.run.data, context.run.seed, report := ReadReport(), takes_tools=True)
    read = tell(report, shared=leaks(context.run.data))
    prompts = [identify(row["messages"][:-1]) for row in rows]
    splits = split_prompts(list(dict.fromkeys(prompts)), config.held_out_fraction, context.run.seed)
    train, held_out = (
        [row for row, prompt in zip(rows, prompts, strict=True) if splits[prompt] == split]
        for split in ("train", "held_out")
    )
    if not held_out:
        raise DataError("data.demonstrations", found="one prompt alone", expected="at least two: one is held out")
    from datasets import Dataset  # after the data: what is wrong with it is said at once
    from trl import SFTConfig

    from trueup.chat import rows as token_rows
    from trueup.chat.template import Chat
    from trueup.training import adalora, checkpoints, common, steps
    from trueup.training.lean import LeanSFTTrainer

    args = common.arguments(
        SFTConfig,
        context,
        config,
        ours=("held_out_fraction",),
        eval_strategy="epoch",
        **_by_epoch(context.run.adapter.kind),
    )
    start = None if context.run.adapter.start is None else Adapter(context.run.adapter.start)
    model, tokenizer = common.load_policy(context, start)
    prepared, measured = (
        token_rows.demonstrations(
            Chat(tokenizer),
            some,
            config.max_length,
            train_on=context.run.data.train_on,
            num_shots=len(context.run.data.few_shot),
        )
        for some in (train, held_out)
    )
    prepared.refuse("sft")
    measured.refuse("sft, held-out rows")
    trainer = LeanSFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=args,
        train_dataset=Dataset.from_list(prepared.rows),
        eval_dataset=Dataset.from_list(measured.rows),
    )
    adapts_rank = context.run.adapter.kind == "adalora" and start is None
    if adapts_rank:
        trainer.add_callback(adalora.Allocate())
    else:
        trainer.add_callback(checkpoints.within_epochs(config.save_steps))
    metrics = steps.train(
        trainer,
        context,
        prepared=prepared,
        start=start,
        save=adalora.save_as_lora if adapts_rank else common.save_adapter,
        probe=[one for (one,) in prepared.encoded],
    )
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    return metrics | {
        "eval_loss": losses[-1] if adapts_rank else min(losses),
        "eval_loss_by_epoch": losses,
        "num_train": len(prepared.rows),
        "num_held_out": len(measured.rows),
        "data": read,
    }


def _by_epoch(kind: str) -> dict[str, object]:
    """Evaluation and a checkpoint each epoch, and the best of these in the end.

    Of AdaLoRA the last state is taken: its ranks shrink, and peft loads no checkpoint of other ranks; a killed run
    begins anew.
    """
    if kind == "adalora":
        return {"save_strategy": "no", "train_sampling_strategy": "group_by_length"}
    return {
        "save_strategy": "epoch",
        "save_total_limit": 3,  # the best, the newest, and the one before while the newest is written
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "train_sampling_strategy": "group_by_length",
    }


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How many trained, how well what was held out is predicted, and what was cut or left out."""
    checked = metrics["preflight"]
    return [
        f"{metrics['num_train']:,} demonstrations trained, {checked['num_cut']:,} of them cut at sft.max_length, "
        f"{checked['num_dropped']:,} left out; held-out loss {metrics['eval_loss']:.3f} nats per token",
        *enough.few(metrics["num_train"], enough.DEMONSTRATIONS, "demonstrations"),
    ]


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    length = values["max_length"]
    load = loads.Load(
        rows=values["per_device_train_batch_size"],
        tokens=length,
        shared=min(lengths.shared_tokens, length),
        labelled=length,
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
        offloads=values["activation_offloading"],
        accumulates=values["gradient_accumulation_steps"] > 1,
        optim=values["optim"],
    )
    rows = lengths.num_demonstrations or loads.FALLBACK_ROWS
    epochs = values["num_train_epochs"]
    tokens = rows * min(lengths.demonstration_tokens or length, length) * epochs
    held_out = values["held_out_fraction"]
    return load, loads.Work(trained_tokens=tokens * (1 - held_out), read_tokens=tokens * held_out)


STAGE = Stage(
    name="sft",
    config=Config,
    makes=Adapter,
    run=run,
    reads=("demonstrations",),
    help="Supervised fine-tuning of an adapter on the 4-bit base.",
    batch="per_device_train_batch_size",
    fits_by=FITS_BY,
    length="max_length",
    plan=plan,
    two_steps={"num_train_epochs": 1, "held_out_fraction": 1e-6},
    per_run=True,
    says=says,
)
