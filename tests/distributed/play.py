"""Plays commands of trueup in this process, one of several ranks or alone: in fp32, PPO by SGD on recorded rollouts.

usage: play.py [--die-at STEP] COMMANDS.json, a list of lists of words. Rank 1 is killed as micro-batch STEP begins.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from trueup import ranks
from trueup.cli.main import main
from trueup.models import base
from trueup.online.ppo import loop, roles, rollout
from trueup.sampling.types import ALL, Generated, Share


class Recorded:
    """A rollout engine that answers each prompt as it did when it was recorded, whoever asks and in whichever order."""

    ran = "a record"

    def __init__(self, *asked: Any) -> None:
        """`asked`: model, tokenizer and settings, of which the answers do not depend."""

    def __call__(self, prompts: list[list[int]], seed: int, share: Share = ALL) -> list[Generated]:
        found = []
        for prompt in prompts:
            drawn = hashlib.sha256(f"{prompt}".encode()).digest()
            ids = [20 + byte % 200 for byte in drawn[: 1 + drawn[31] % 6]]  # one to six tokens
            found.append(Generated(ids, [-3.0] * len(ids)))
        return found


def sgd(of: roles.Roles, settings: Any) -> torch.optim.Optimizer:
    groups = [
        {"params": of.policy_parameters(), "lr": settings.learning_rate},
        {"params": of.value_parameters(), "lr": settings.value_learning_rate},
    ]
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    return torch.optim.SGD(groups)


def die_at(step: int) -> None:
    plain, calls = Trainer.training_step, []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == step and ranks.this() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *args, **kwargs)

    Trainer.training_step = training_step


def play(words: list[str]) -> None:
    base.compute_dtype = lambda *chosen: torch.float32  # type: ignore[assignment]
    rollout.engine, loop.new_optimizer = Recorded, sgd  # type: ignore[assignment]
    if words[0] == "--die-at":
        die_at(int(words[1]))
        words = words[2:]
    for command in json.loads(Path(words[0]).read_text()):
        main(command, standalone_mode=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(sys.argv[1:])
