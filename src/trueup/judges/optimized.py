"""What a method optimizes, as a measure of answers: the reward model on the base in memory, or functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.data.dialogue import Messages
from trueup.errors import ModelError
from trueup.evaluation import best_of, compare
from trueup.models import scoring
from trueup.online import rewards
from trueup.online.settings import RewardSettings, combination
from trueup.run.stage import Context
from trueup.sampling.types import Sampled


@dataclass(frozen=True)
class Optimized:
    """`head` is the score weight of the adapter "reward" of `model`, (1, hidden); without one, `parts` reward."""

    model: Any
    tokenizer: Any
    head: Any
    parts: list[rewards.Part]

    def scores(
        self,
        prompts: list[Messages],
        answers: dict[str, list[Sampled]],
        advance: Callable[[int], None] = lambda done: None,
    ) -> dict[str, list[float]]:
        """The reward of each answer of each contestant, (prompts,); `advance` hears of those that are scored."""
        if self.head is not None:
            return compare.rewards_of_each(self.model, self.head, self.tokenizer, prompts, answers, advance)
        texts = {label: [one.text for one in some] for label, some in answers.items()}
        return {label: rewards.total(self.parts, prompts, some) for label, some in texts.items()}

    def best(
        self,
        prompts: list[Messages],
        every: list[Sampled],
        n: int,
        advance: Callable[[int], None] = lambda done: None,
        *,
        keep: int = 1,
    ) -> tuple[list[int], list[float]]:
        """(the places of the `keep` best of each n answers in a row, the best first; the rewards of all).

        `every` has n answers to each of `prompts`. Raises ModelError where a reward is no finite number.
        """
        found = self.scores([messages for messages in prompts for _ in range(n)], {"": every}, advance)[""]
        if lost := [reward for reward in found if not math.isfinite(reward)]:
            raise ModelError(
                "best-of-n",
                found=f"{len(lost)} of {len(found)} answers have a reward of {lost[0]}",
                expected="finite numbers",
                next_step="trueup reward RUN.yaml --rebuild",
            )
        return best_of.best(found, n, keep), found


def of_run(context: Context, model: Any, tokenizer: Any, reward: Path | None) -> Optimized:
    """The reward model of the folder `reward`, loaded into `model`; without one, the functions of the run's method."""
    if reward is not None:
        return Optimized(model, tokenizer, scoring.load_reward(model, reward, combination(context.run)), [])
    return Optimized(model, tokenizer, None, functions(context))


def functions(context: Context) -> list[rewards.Part]:
    """The functions that the run's method optimizes; none where it is not rewarded by any."""
    method = context.run.section(context.run.method)
    if not isinstance(method, RewardSettings):
        return []
    return rewards.build(method, context.run_file_dir, None, [])
