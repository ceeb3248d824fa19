"""What the run file says about who judges. Free of torch, so that reading a run file is fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from trueup.run.address import clean
from trueup.run.section import Section

Kind = Literal["disjoint", "function", "endpoint", "people", "optimized"]


class JudgeSettings(Section):
    """Who compares the answers of the aligned model with others."""

    judge: Kind = "disjoint"
    """Whose verdict the report begins with: `disjoint`, a reward model on the judgements that `collect` held out;
    `function`, `judge_functions`; `endpoint`, a model behind `judge_url`; `people`, a blind A/B in Label Studio;
    `optimized`, what the method optimized. Where too few judgements are held out, `disjoint` becomes `optimized`, which
    is said (see docs/verdict.md)."""
    judge_functions: dict[str, float] = Field(default={})
    """Python functions that judge, each with its weight: `{module:function: 1.0}`, called as reward functions are. None
    by default."""
    judge_url: str | None = None
    """The address of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1, whose model judges; its
    key, where it needs one, is read from the environment variable TRUEUP_JUDGE_API_KEY. None by default."""
    judge_model: str | None = None
    """The name by which the endpoint knows the model that judges. None by default."""
    judge_timeout_s: PositiveFloat = 60.0
    """How long the endpoint may take for one answer, in seconds."""
    judge_pairs: PositiveInt = 100
    """Pairs that people judged on which the endpoint is asked as well, to tell how often it is right."""
    people_per_prompt: PositiveInt = 1
    """People who are asked about each held-out prompt, where `people` judge."""

    @field_validator("judge_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        return None if url is None else clean(url)
