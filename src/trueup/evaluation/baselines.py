"""What a run has to beat: the bare base, the base with a system prompt, the base with examples in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from trueup.errors import ConfigError
from trueup.stage import Section

Baseline = Literal["base", "system_prompt", "few_shot"]
Messages = list[dict[str, str]]


class Example(Section):
    """One exchange that the few-shot baseline shows the base."""

    prompt: str
    response: str


def prompts(
    baseline: Baseline, asked: list[Messages], system: str | None, examples: Sequence[Example]
) -> list[Messages]:
    """The prompts of `asked` as this baseline puts them to the base, its adapters off.

    base: no system prompt. system_prompt: the run's. few_shot: the run's, if any, and the examples as earlier turns.
    Raises ConfigError when what the baseline needs is not set.
    """
    need(baseline, system, examples)
    head: Messages = [{"role": "system", "content": system}] if system and baseline != "base" else []
    if baseline == "few_shot":
        for example in examples:
            head += [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.response}]
    return [head + [message for message in messages if message["role"] != "system"] for messages in asked]


def need(baseline: Baseline, system: str | None, examples: Sequence[Example]) -> None:
    """Raises ConfigError when the run file lacks what the baseline is made of."""
    if baseline == "system_prompt" and not system:
        raise ConfigError(
            "evaluate.baselines",
            found="system_prompt, and no data.system",
            next_step="set data.system, or leave it out",
        )
    if baseline == "few_shot" and not examples:
        raise ConfigError(
            "evaluate.baselines",
            found="few_shot, and no evaluate.few_shot",
            expected="a list of {prompt: ..., response: ...}",
            next_step="set evaluate.few_shot, or leave it out",
        )
