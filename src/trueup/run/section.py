"""What every section of the run file is."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A section of the run file. Unknown keys are refused; values never change after loading."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, allow_inf_nan=False)


class AlignmentSection(Section):
    """The section of a stage that aligns. The run file's `method` names one of these stages."""


class TrainerSection(Section):
    """The section of a stage that trains by a TRL trainer, any further argument of which may stand under `trainer`."""

    arguments_of: ClassVar[str]  # the dataclass of the trainer's arguments, such as trl.trainer.dpo_config.DPOConfig
    set_elsewhere: ClassVar[dict[str, str]] = {}  # arguments that are refused, each with what to do instead

    trainer: dict[str, Any] = Field(default_factory=dict)  # checked here by name, and by the trainer's dataclass

    @field_validator("trainer")
    @classmethod
    def _known_arguments(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        from trueup.run import trainer_arguments

        instead = dict.fromkeys(cls.model_fields, "write it without `trainer`") | cls.set_elsewhere
        if faults := trainer_arguments.faults(trainer, cls.arguments_of, instead):
            raise ValueError("; ".join(faults))
        return trainer
