"""What every section of the run file is."""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator


class Section(BaseModel):
    """A section of the run file. Unknown keys are refused; values never change after loading.

    The docstring below a key is its description in the JSON Schema and in `--help`.
    """

    model_config = ConfigDict(
        defer_build=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for field in cls.model_fields.values():
            field.description = " ".join((field.description or "").split()) or None


S = TypeVar("S", bound=Section)


def offloads_checkpoints(section: S) -> S:
    """The section itself. Raises ValueError where it offloads activations without checkpointing: all of them, then."""
    if getattr(section, "activation_offloading", False) and not getattr(section, "gradient_checkpointing", False):
        raise ValueError("activation_offloading needs gradient_checkpointing: true, or it would move every activation")
    return section


class AlignmentSection(Section):
    """The section of a stage that aligns. The run file's `method` names one of these stages."""

    keep_checkpoints: int = Field(default=2, ge=2)
    """The number of checkpoints that are kept, the newest ones; `evaluate.checkpoints` compares the aligned model with
    those before the last step. Each holds the state of the optimizer as well, and is as large as four adapters or
    more."""


class TrainerSection(Section):
    """The section of a stage that trains by a TRL trainer, any further argument of which may stand under `trainer`."""

    arguments_of: ClassVar[str]  # the dataclass of the trainer's arguments, such as trl.trainer.dpo_config.DPOConfig
    set_elsewhere: ClassVar[dict[str, str]] = {}  # arguments that are refused, each with what to do instead

    trainer: dict[str, Any] = Field(default={})  # checked here by name, and by the trainer's dataclass
    """Further arguments of this stage's TRL trainer, by TRL's own names, such as `{weight_decay: 0.01}`; those that
    trueup sets itself are refused. Empty by default, so that TRL's defaults hold."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, and about a third more
    time."""
    activation_offloading: bool = False
    """Keep the hidden states that gradient checkpointing saves in the memory of the CPU until the backward pass: less
    memory on a GPU, more on its host, and some percent more time. Needs `gradient_checkpointing` and a GPU."""
    optim: str = "adamw_torch_fused"
    """The optimizer, by the name that transformers gives it: `adamw_8bit` keeps AdamW's moments in 8 bits (a quarter of
    their memory), and `paged_adamw_8bit` lets them leave the GPU while its memory is short; both are bitsandbytes'."""
    save_steps: PositiveInt = 10
    """Optimizer steps between two checkpoints: a killed run loses at most these. `sft` with AdaLoRA keeps none."""

    @model_validator(mode="after")
    def _offloads_checkpoints(self) -> Self:
        return offloads_checkpoints(self)

    @field_validator("trainer")
    @classmethod
    def _known_arguments(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        from trueup.run import trainer_arguments

        own = cls.model_fields.keys() - {"optim"}  # which older run files have under `trainer`
        instead = dict.fromkeys(own, "write it without `trainer`") | cls.set_elsewhere
        if faults := trainer_arguments.faults(trainer, cls.arguments_of, instead):
            raise ValueError("; ".join(faults))
        return trainer
