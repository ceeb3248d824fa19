"""GRPO as a person can read it: TRL's figures become rows, warnings and completions of our log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from trueup import ranks
from trueup.chat.template import Chat, Encoded
from trueup.data.dialogue import Messages
from trueup.online.log import Log
from trueup.online.rewards import Part

NAMES = {  # TRL's -> ours
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "clip_ratio/region_mean": "clip_fraction",
    "completions/mean_length": "length_tokens",
}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Calls the parts of the reward for TRL, and writes a row each time it logs."""

    def __init__(self, log: Log, parts: list[Part], completions_steps: int, tokenizer: Any) -> None:
        self.log, self.parts, self.completions_steps, self.chat = log, parts, completions_steps, Chat(tokenizer)
        self.prompts: list[Messages] = []
        self.texts: list[str] = []
        self.rewards: list[float] = []

    def reward_funcs(self) -> list[Callable[..., list[float]]]:
        """The parts as TRL calls them: completions come as lists of one assistant message."""
        return [self._as_trl(part) for part in self.parts]

    def _as_trl(self, part: Part) -> Callable[..., list[float]]:
        def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
            texts = [completion[0]["content"] for completion in completions]
            scores = part(prompts, texts, self._encoded(prompts, columns["completion_ids"]))
            before = [0.0] * len(scores) if part is self.parts[0] else self.rewards
            self.rewards = [a + b for a, b in zip(before, scores, strict=True)]
            self.prompts, self.texts = prompts, texts
            return scores

        reward.__name__ = part.name
        return reward

    def _encoded(self, prompts: list[Messages], completions: list[list[int]]) -> list[Encoded]:
        """What was sampled, as it is scored; TRL stops at the ends that `end_ids` names, and keeps them."""
        special = set(self.chat.tokenizer.all_special_ids)
        return [
            self.chat.sampled(prompt, ids, finished=bool(ids) and ids[-1] in special)
            for prompt, ids in zip(prompts, completions, strict=True)
        ]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "reward" not in logs:
            return
        from rich.console import Console
        from rich.markup import escape

        num_tokens = round(logs["completions/mean_length"] * len(self.texts) * ranks.count())
        row = {ours: logs[theirs] for theirs, ours in NAMES.items() if theirs in logs} | {
            "step": state.global_step,
            "eos_rate": 1 - logs["completions/clipped_ratio"],
            "num_tokens": num_tokens,
            "step_s": logs["step_time"],
            "tokens_per_s": num_tokens / logs["step_time"],
        }
        for sentence in self.log.write(row)["warnings"]:
            Console(stderr=True, quiet=not ranks.is_first()).print(escape(f"step {state.global_step}: {sentence}"))
        if (state.global_step - 1) % self.completions_steps == 0:
            self.log.write_completions(state.global_step, self.prompts, self.texts, self.rewards)
