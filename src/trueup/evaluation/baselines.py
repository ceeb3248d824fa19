"""What a run has to beat: the bare base, the base with a system prompt, the base with examples in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from trueup.errors import ConfigError
from trueup.run.data_config import DataConfig, Shot

Baseline = Literal["base", "system_prompt", "few_shot"]
Messages = list[dict[str, str]]


def default(data: DataConfig, examples: Sequence[object], learned: bool) -> tuple[Baseline, ...]:
    """The baselines that a run file has what it takes for; none where the judge `learned` from answers of the run.

    Such a judge has seen answers of SFT alone, and may be wrong about those of the base: docs/verdict.md.
    """
    if learned:
        return ()
    given: dict[Baseline, bool] = {"base": True, "system_prompt": bool(data.system), "few_shot": bool(examples)}
    return tuple(baseline for baseline, there in given.items() if there)


def prompts(baseline: Baseline, asked: list[Messages], data: DataConfig, examples: Sequence[Shot]) -> list[Messages]:
    """The prompts of `asked`, read with the run's `data`, as this baseline puts them to the base, its adapters off.

    base: no system prompt. system_prompt: the run's. few_shot: the run's, if any, and the examples as earlier turns.
    Raises ConfigError when what the baseline needs is not set.
    """
    system = data.system
    need(baseline, system, examples)
    head: Messages = [{"role": "system", "content": system}] if system and baseline != "base" else []
    if baseline == "few_shot":
        for example in examples:
            head += [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.response}]
    own = [[message for message in messages if message["role"] != "system"] for messages in asked]
    return [head + messages[2 * len(data.few_shot) :] for messages in own]


def need(baseline: Baseline, system: str | None, examples: Sequence[Shot]) -> None:
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
            found="few_shot, and neither evaluate.few_shot nor data.few_shot",
            expected="a list of {prompt: ..., response: ...}",
            next_step="set one of them, or leave the baseline out",
        )
