"""What a completion is worth: the reward adapter on the shared base, Python functions, or a weighted sum of them."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.chat.template import Chat, Encoded
from trueup.data.dialogue import Messages
from trueup.errors import ConfigError, ModelError, StageError
from trueup.models import scoring
from trueup.online.settings import RewardSettings
from trueup.run.stage import Metrics

Reward = Callable[[list[Messages], list[str]], list[float]]


@dataclass(frozen=True)
class Part:
    """One term of the reward: weight x (score - mean) / spread."""

    name: str
    weight: float
    reward: Reward
    mean: float = 0.0
    spread: float = 1.0
    where: str = "reward"  # what a message says before the name

    def __call__(
        self, prompts: list[Messages], completions: list[str], encoded: list[Encoded] | None = None
    ) -> list[float]:
        """The weighted scores; the reward model's of the token ids in `encoded`, where they are given.

        Raises StageError naming the part and the prompt when one is no finite number.
        """
        if encoded is not None and isinstance(self.reward, OfModel):
            scores = self.reward.of(encoded)
        else:
            scores = self.reward(prompts, completions)
        for prompt, score in zip(prompts, scores, strict=True):
            if not math.isfinite(score):
                raise _fault(
                    f"{self.where} {self.name}", f"a {_called(self.where)} of {score}", "a finite number", prompt
                )
        return [self.weight * (score - self.mean) / self.spread for score in scores]


@dataclass(frozen=True)
class OfModel:
    """The scores of the reward model in `model`, whose head `scoring.load_reward` made; the active adapter stays."""

    model: Any
    head: Any  # scoring.Head
    tokenizer: Any
    batch_size: int

    def __call__(self, prompts: list[Messages], completions: list[str]) -> list[float]:
        """Of finished answers, as texts."""
        chat = Chat(self.tokenizer)
        return self.of([chat.answer(p, c) for p, c in zip(prompts, completions, strict=True)])

    def of(self, encoded: list[Encoded]) -> list[float]:
        """Of conversations as token ids."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].answer))
        scores: dict[int, float] = {}
        was_training = self.model.training
        self.model.eval()  # no dropout
        for start in range(0, len(order), self.batch_size):
            chunk = order[start : start + self.batch_size]
            found = scoring.scores(self.model, self.head, [encoded[i].ids for i in chunk]).tolist()
            scores |= dict(zip(chunk, found, strict=True))
        self.model.train(was_training)
        return [scores[i] for i in range(len(encoded))]


def of_function(name: str, folder: Path, key: str = "reward_functions") -> Reward:
    """`module:function`, called with prompts (messages) and completions (texts); `folder` is searched first.

    `key` of the run file names it.

    Raises ConfigError when there is no such function, and StageError, naming prompt and function, when it raises or
    returns another number of rewards than there were completions.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(folder))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(
            f"{key}: {name}",
            found=f"{type(error).__name__}: {error}",
            expected=f"module:function, importable from {folder}",
            next_step="correct the module, or the name in the run file",
        ) from None
    finally:
        sys.path.remove(str(folder))

    where = f"{'reward' if key == 'reward_functions' else key} {name}"

    def reward(prompts: list[Messages], completions: list[str]) -> list[float]:
        try:
            scores = [float(score) for score in function(prompts=prompts, completions=completions)]
        except (Exception, SystemExit) as error:
            blamed = _first_that_raises(function, prompts, completions)
            raise _fault(where, f"it raised {type(error).__name__}: {error}", f"a {_called(where)}", blamed) from error
        if len(scores) != len(completions):
            found = f"{len(scores)} {_called(where)}s for {len(completions)} completions"
            raise _fault(where, found, f"one {_called(where)} for each", prompts[0])
        return scores

    return reward


def build(
    settings: RewardSettings,
    folder: Path,
    reward_model: Reward | None,
    samples: list[tuple[Messages, str]],
    encoded: list[Encoded] | None = None,
) -> list[Part]:
    """The parts that `settings` ask for.

    The reward model's score is normalized by its mean and spread on `samples`, SFT completions (Huang et al. 2024),
    whose token ids are `encoded`.
    Raises ConfigError when nothing is rewarded.
    """
    parts = [Part(name, weight, of_function(name, folder)) for name, weight in settings.reward_functions.items()]
    if reward_model is not None:
        mean, spread = _moments(Part("reward_model", 1.0, reward_model), samples, encoded, settings.num_reward_samples)
        parts.insert(0, Part("reward_model", settings.reward_model_weight, reward_model, mean, spread))
    if not parts:
        raise ConfigError(
            "reward_functions", found="nothing to reward", expected="a reward model of weight > 0, or a function"
        )
    return parts


def total(parts: list[Part], prompts: list[Messages], completions: list[str]) -> list[float]:
    """The sum of the parts for each completion."""
    return [sum(scores) for scores in zip(*(part(prompts, completions) for part in parts), strict=True)]


def describe(parts: list[Part]) -> Metrics:
    """What was rewarded, for the record."""
    shown = ("name", "weight", "mean", "spread")
    return {"reward_parts": [{name: getattr(part, name) for name in shown} for part in parts]}


def refuse_another_base(policy: Path, reward: Path) -> None:
    """Raise ModelError when the reward model saved in `reward` was trained on another base than `policy`."""
    bases = [
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        for folder in (policy, reward)
    ]
    if not _same(*bases):
        raise ModelError(
            str(reward),
            found=f"a reward model trained on {bases[1]}",
            expected=f"one trained on the policy's base, {bases[0]}",
            next_step="trueup reward RUN.yaml --rebuild",
        )


def _same(one: str, other: str) -> bool:
    """Hub ids are compared; of folders, which may have been moved, the run compares the contents."""
    folders = one.startswith("/") and other.startswith("/")
    return folders or one == other or one.endswith(f"/{other}") or other.endswith(f"/{one}")


def _moments(
    reward: Part, samples: list[tuple[Messages, str]], encoded: list[Encoded] | None, most: int
) -> tuple[float, float]:
    prompts, texts = [prompt for prompt, _ in samples[:most]], [completion for _, completion in samples[:most]]
    scores = reward(prompts, texts, None if encoded is None else encoded[:most])
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    if not spread > 1e-6:
        raise StageError(
            "reward_model", found=f"the same score, {mean:.4f}, for all SFT samples", expected="scores that differ"
        )
    return mean, spread


def _first_that_raises(function: Callable[..., Any], prompts: list[Messages], completions: list[str]) -> Messages:
    for prompt, completion in zip(prompts, completions, strict=True):
        try:
            function(prompts=[prompt], completions=[completion])
        except (Exception, SystemExit):
            return prompt
    return prompts[0]


def _called(where: str) -> str:
    """What a function returns: a judge, and what else is no reward, gives scores."""
    return "reward" if where.startswith("reward") else "score"


def _fault(where: str, found: str, expected: str, prompt: Messages) -> StageError:
    text = prompt[-1]["content"]
    return StageError(where, found=f"{found}, at the prompt {text[:80]!r}", expected=expected)
