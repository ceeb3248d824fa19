"""What an evaluation measures of what may be lost, by the run file: what that takes, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trueup.data.dialogue import Messages
from trueup.evaluation import abilities, general, lm_tasks, refusals
from trueup.evaluation.abilities import AbilitySettings
from trueup.online.settings import RewardSettings, files_of_functions

Row = dict[str, Any]


def refuse(config: AbilitySettings, folder: Path) -> None:
    """Raises ConfigError where what is to be measured lacks what it is made of; `folder` is the run file's."""
    general.read(config.general_text, folder)
    _rule(config, folder)
    lm_tasks.refuse(config.lm_eval_tasks, folder)


def files(config: AbilitySettings, folder: Path) -> dict[str, Path]:
    """The files that it depends on, by what they are to it."""
    named = {config.refusal_function: 1.0} if config.refusal_function else {}
    functions = files_of_functions(RewardSettings(reward_functions=named), folder)
    found = {name.replace("reward", "refusal", 1): path for name, path in functions.items()}
    if config.general_text is not None:
        found["general text"] = folder / config.general_text.expanduser()
    return found | lm_tasks.files(config.lm_eval_tasks, folder)


def measure(
    config: AbilitySettings,
    folder: Path,
    model: Any,
    tokenizer: Any,
    shown: Callable[[str, int], Callable[[int], None]],
) -> Row:
    """What takes the model, in which the adapters "sft" and "default" are: the general text and the tasks of lm-eval.

    `shown` makes a bar of that name and length.
    """
    text, found = general.read(config.general_text, folder), Row(general_text=None, lm_eval={})
    if text is not None:
        advance = shown("general text", len(general.WHO) * len(text.documents))
        found["general_text"] = general.measure(model, tokenizer, text, general.WHO, advance)
    if tasks := config.lm_eval_tasks:
        advance = shown("lm-eval", len(lm_tasks.WHO))
        found["lm_eval"] = lm_tasks.measure(model, tokenizer, tasks, config.lm_eval_limit, folder, advance)
    return found


def figures(
    config: AbilitySettings, folder: Path, found: Row, prompts: list[Messages], prompt_ids: Sequence[str]
) -> Row:
    """For the record; `found` is what `contest.measured` found. What was not measured is None."""
    answers = {label: [one["text"] for one in some] for label, some in found["done"].items()}
    measured = found.get("abilities", {})
    text = measured.get("general_text")
    return {
        "general_text": None if text is None else general.figures(text),
        "lm_eval": measured.get("lm_eval", {}),
        "refusals": abilities.refusals(_rule(config, folder), prompts, prompt_ids, answers),
    }


def _rule(config: AbilitySettings, folder: Path) -> tuple[str, refusals.Refuses]:
    name, function = config.refusal_function, None
    if name is not None:
        from trueup.online import rewards  # imports torch

        function = rewards.of_function(name, folder, "evaluate.refusal_function")
    return refusals.rule(config.refusal_openings, name, function)
