"""What every section of the run file is."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator


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


class AlignmentSection(Section):
    """The section of a stage that aligns. The run file's `method` names one of these stages."""


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
    save_steps: PositiveInt = 10
    """Optimizer steps between two checkpoints: a killed run loses at most these. `sft` with AdaLoRA keeps none."""

    @field_validator("trainer")
    @classmethod
    def _known_arguments(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        from trueup.run import trainer_arguments

        instead = dict.fromkeys(cls.model_fields, "write it without `trainer`") | cls.set_elsewhere
        if faults := trainer_arguments.faults(trainer, cls.arguments_of, instead):
            raise ValueError("; ".join(faults))
        return trainer
