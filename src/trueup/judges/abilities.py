"""What an evaluation measures of what may be lost, by the run file: what that takes, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.data.dialogue import Messages
from trueup.evaluation import abilities, general, refusals
from trueup.evaluation.abilities import AbilitySettings
from trueup.online.settings import RewardSettings, files_of_functions

Row = dict[str, Any]


def refuse(config: AbilitySettings, folder: Path) -> None:
    """Raises ConfigError where what is to be measured lacks what it is made of; `folder` is the run file's."""
    general.read(config.general_text, folder)
    _rule(config, folder)


def files(config: AbilitySettings, folder: Path) -> dict[str, Path]:
    """The files that it depends on, by what they are to it."""
    named = {config.refusal_function: 1.0} if config.refusal_function else {}
    found = files_of_functions(RewardSettings(reward_functions=named), folder)
    if config.general_text is not None:
        found["general text"] = folder / config.general_text.expanduser()
    return found


def figures(
    config: AbilitySettings, folder: Path, found: Row, prompts: list[Messages], prompt_ids: Sequence[str]
) -> Row:
    """For the record; `found` is what `contest.measured` found. What was not measured is None."""
    answers = {label: [one["text"] for one in some] for label, some in found["done"].items()}
    text = found.get("general_text")
    return {
        "general_text": None if text is None else general.figures(text),
        "refusals": abilities.refusals(_rule(config, folder), prompts, prompt_ids, answers),
    }


def _rule(config: AbilitySettings, folder: Path) -> tuple[str, refusals.Refuses]:
    name, function = config.refusal_function, None
    if name is not None:
        from trueup.online import rewards  # imports torch

        function = rewards.of_function(name, folder, "evaluate.refusal_function")
    return refusals.rule(config.refusal_openings, name, function)
