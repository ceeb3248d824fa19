"""Arguments, set-up and the loop that every TRL stage shares."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

import click
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from trueup import cpu, gpu, ranks
from trueup.errors import ConfigError
from trueup.models import adapters, base, device, targets, transfer
from trueup.run import naming
from trueup.run.artifacts import Artifact, write_json
from trueup.run.run_file import AdapterConfig
from trueup.run.section import AlignmentSection, TrainerSection
from trueup.run.stage import Context, Metrics
from trueup.training import along, checkpoints, finite, gradients, head, progress, saving

FEW_LEFT_OUT = 0.1  # of the steps: a loss is scaled by 65,536 at first, which overflows some times


def trainer_args(context: Context, **more: Any) -> dict[str, Any]:
    """The TrainingArguments of every stage: device, seeds, checkpoints, quiet logs."""
    import torch

    device.use_one_gpu()
    on_gpu = torch.cuda.is_available()
    half = base.compute_dtype(context.run.model.dtype)
    arguments: dict[str, Any] = {
        "output_dir": str(context.checkpoints),
        "use_cpu": not on_gpu,
        "bf16": on_gpu and half == torch.bfloat16,
        "fp16": on_gpu and half == torch.float16,
        "seed": context.run.seed,
        "report_to": "none",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log a loss that is NaN as 0, and wait for the device to find out
        "save_strategy": "steps",
        "save_total_limit": 2,
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    return arguments | more


def arguments(kind: Any, context: Context, config: TrainerSection, *, ours: Iterable[str] = (), **more: Any) -> Any:
    """The arguments `kind` (a dataclass of TRL) of a stage: ours, its section's but those in `ours`, its `trainer`'s.

    Raises ConfigError, before any weights are loaded, when a value is of another type or TRL refuses it.
    """
    not_trls = {"trainer", "activation_offloading", "keep_checkpoints", *ours}
    values = trainer_args(context, **more) | config.model_dump(exclude=not_trls)
    if isinstance(config, AlignmentSection):
        along.refuse_too_few_kept(context.stage, config, along.wanted(context.run))
        values["save_total_limit"] = config.keep_checkpoints
    if "per_device_train_batch_size" in values:  # else 8 rows, where a training batch of one is all that fits
        values["per_device_eval_batch_size"] = values["per_device_train_batch_size"]
    hints, stage = get_type_hints(kind), context.stage
    given, faults = {}, []
    for name, value in config.trainer.items():
        try:
            given[name] = TypeAdapter(hints[name]).validate_python(value)
        except PydanticSchemaGenerationError:  # a type of torch's, say: the dataclass checks it
            given[name] = value
        except ValidationError as error:
            faults.append(f"{name}: {value!r}, {error.errors()[0]['msg']}")
    optim = config.trainer.get("optim", config.optim)
    saving.refuse_without_gpu(stage, str(optim), config.activation_offloading, on_gpu=not values["use_cpu"])
    try:
        if not faults:
            made = kind(**values | given)
            if made.n_gpu > 1:  # CUDA had started before `use_one_gpu`: the Trainer would take nn.DataParallel
                made._n_gpu = 1
            return made
    except (TypeError, ValueError, ImportError, AssertionError, KeyError) as error:
        faults.append(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
    raise ConfigError(
        f"{stage}, {stage}.trainer",
        found="; ".join(faults),
        expected=f"what trl.{kind.__name__} takes",
        next_step=f"change the section {stage} of the run file, then: trueup {stage} RUN.yaml",
    )


def load_policy(context: Context, adapter: Artifact | None, *, num_labels: int | None = None) -> tuple[Any, Any]:
    """(model with a trainable adapter "default", tokenizer). With `adapter`, its weights; else a fresh one.

    The seed is set first: a fresh adapter, a score head and dropout are drawn from it.
    """
    from transformers import set_seed

    run = context.run
    set_seed(run.seed)
    if not context.only_preflight and (which := device.which_of_several()):
        click.echo(which)
    task = "CAUSAL_LM" if num_labels is None else "SEQ_CLS"
    four_bit = run.adapter.kind != "lora"
    targets.of_base(base.skeleton(run.model.base, four_bit=four_bit), run.adapter)  # before weights are loaded
    tokenizer = base.load_tokenizer(run.model)
    if num_labels is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        # a classifier reads its score at the last token that is not padding, and that is the end token
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token or tokenizer.pad_token
    if context.only_preflight:
        return adapters.new_adapter(base.stand_in(tokenizer, num_labels), AdapterConfig(), task_type=task), tokenizer
    bare = base.load_base(run.model.base, four_bit=four_bit, num_labels=num_labels, dtype=run.model.dtype)
    bare.config.pad_token_id = tokenizer.pad_token_id
    if adapter is None:
        model = adapters.new_adapter(bare, run.adapter, task_type=task)
    elif num_labels is not None:
        model = adapters.new_like(bare, adapter.path, task_type=task)
    else:
        if adapter.path == run.adapter.start:
            transfer.refuse_unfit(bare, run.adapter, adapter.path)
        model = adapters.load_adapter(bare, adapter.path, trainable=True)
    gpu.fuse(model)
    tell_parts(context, model)
    return model, tokenizer


def tell_parts(context: Context, model: Any) -> None:
    """Say in one line which of the GPU's own parts run; on a CPU, nothing."""
    if parts := gpu.described(model):
        stage = context.stage
        said = "; ".join(f"{name} {what}" for name, what in parts.items())
        click.echo(f"{stage}: {said}", err=True)


def make_ready(trainer: Any, start: Artifact | None = None, *, with_entropy: bool = False) -> None:
    """After TRL built the trainer: fp32 adapters, `ref` copied again from fp32, the fast forward, sealed checkpoints.

    TRL rounds trainable parameters to bf16 on a 4-bit base, so those of `start` are copied in once more.
    `with_entropy`: the trainer reads the entropy of each token.
    """
    model = trainer.model
    adapters.trainable_to_fp32(model)
    if start is not None:
        adapters.copy_into(model, adapters.saved_tensors(start.path))
    if "ref" in model.peft_config:
        parameters = dict(model.named_parameters())
        for name, parameter in parameters.items():
            if ".ref." in name:
                parameter.data = parameters[name.replace(".ref.", ".default.")].data.clone()
                parameter.requires_grad_(False)
    if model.peft_config["default"].task_type == "CAUSAL_LM":
        if cpu.accelerate(model) or model.device.type == "cuda":
            head.install(model.get_base_model(), with_entropy=with_entropy)
    else:
        head.score_in_fp32(model.get_base_model().score)
    if model.device.type == "cpu":
        gradients.place(model.parameters())
        model.zero_grad = functools.partial(model.zero_grad, set_to_none=False)
    trainer.add_callback(checkpoints.sealing_callback())
    stage = naming.stage_of(Path(trainer.args.output_dir).parent.name)
    trainer.add_callback(finite.Finite(stage, trainer.accelerator))
    progress.install(trainer, stage)


def train(trainer: Any) -> Metrics:
    """Train from the newest whole checkpoint, or from the start; the metrics say which."""
    start = ranks.from_first(lambda: checkpoints.latest_whole(Path(trainer.args.output_dir)))
    if start is not None and checkpoints.is_last(start):
        # transformers would train one step more within an epoch; without epochs it loads the checkpoint and ends
        trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    model = trainer.model
    watch = next(one for one in trainer.callback_handler.callbacks if isinstance(one, finite.Finite))
    if watch.num_left_out > FEW_LEFT_OUT * watch.num_steps:
        click.echo(
            f"warning: {watch.num_left_out} of {watch.num_steps} steps were left out, since their gradient overflowed "
            "in fp16; with model.dtype: float32 none would be"
        )
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]  # of every step, before a resume too
    return {
        "resumed_from_step": checkpoints.step_of(start),
        "training": gpu.described(model),
        **base.computed_in(model),
        "train_loss": sum(losses) / len(losses),
        "num_steps": int(trainer.state.global_step),
        "num_steps_left_out": watch.num_left_out,  # in fp16, since the last resume
        "train_s": round(time.monotonic() - began, 1),
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def save_adapter(model: Any, out: Path) -> None:
    """Save adapter "default" of `model` alone: TRL's save_model would write `ref/` as well."""
    model.save_pretrained(str(out), selected_adapters=["default"], safe_serialization=True)
    sort_targets(out)


def sort_targets(out: Path) -> None:
    """Sort target_modules in the saved configuration: peft writes a set, in an order that each process draws anew."""
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
        write_json(out / "adapter_config.json", config)
