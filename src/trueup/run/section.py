"""What every section of the run file is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the run file. Unknown keys are refused; values never change after loading."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, allow_inf_nan=False)


class AlignmentSection(Section):
    """The section of a stage that aligns. The run file's `method` names one of these stages."""
