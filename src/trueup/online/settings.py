"""What the run file says about PPO. Free of torch, so that reading a run file is fast."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from pydantic import Field

from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Metrics
from trueup.sampling.types import Engine

KLEstimator = Literal["k1", "k2", "k3"]
ValueOn = Literal["adapter", "trunk"]
Tracker = Literal["tensorboard", "trackio", "wandb"]


class RewardSettings(Section):
    """What is rewarded: the weighted sum of the reward model and of any Python functions."""

    reward_model_weight: float = 1.0  # of its score, normalized on SFT samples; 0 leaves it out
    reward_functions: dict[str, float] = Field(default_factory=dict)  # "module:function" -> weight
    reward_batch_size: int = Field(default=16, gt=0)  # conversations scored at once
    num_reward_samples: int = Field(default=128, gt=1)  # SFT completions the normalization is measured on


def unused_inputs(config: RewardSettings, run: RunFile) -> tuple[str, ...]:
    """Functions alone reward: no reward model is needed."""
    return ("reward",) if config.reward_model_weight == 0 else ()


def files_of_functions(config: RewardSettings, folder: Path) -> dict[str, Path]:
    """The file that holds each reward function, found as Python would, in `folder` first; nothing is run.

    What such a file imports in its turn is not among them.
    """
    return {
        f"reward function {name}": found
        for name in config.reward_functions
        if (found := _file_of(name.partition(":")[0], folder)) is not None
    }


def _file_of(module: str, folder: Path) -> Path | None:
    places = [str(folder), *sys.path]
    for depth in range(module.count(".") + 1):
        spec = PathFinder.find_spec(".".join(module.split(".")[: depth + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin else None


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """Where the reward and the KL went, first tenth of the run against the last, and how often something was off."""
    if "first_reward" not in metrics:
        return [f"{metrics['num_steps']:,} steps"]
    rewards = f"reward {metrics['first_reward']:.3f} -> {metrics['last_reward']:.3f}"
    kl = f", KL {metrics['first_kl']:.3f} -> {metrics['last_kl']:.3f} nats per token" if "last_kl" in metrics else ""
    number = metrics["num_warnings"]
    off = [f"warning: {number:,} warnings while it ran; metrics.jsonl has them"] if number else []
    return [f"{metrics['num_steps']:,} steps: {rewards}{kl}", *off]


class Settings(RewardSettings):
    """Field names are those of trl.experimental.ppo.PPOConfig (trl 1.12) where it had them."""

    num_steps: int = Field(default=60, gt=0)  # rollouts, each followed by an update
    rollout_batch_size: int = Field(default=32, gt=0)  # completions per step
    max_prompt_tokens: int = Field(default=256, gt=0)  # longer prompts are left out, counted and named
    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=1.0, gt=0)  # top-p and top-k are off: they would sample another policy
    engine: Engine = "auto"  # of the rollouts; merged: faster, with a bf16 copy in memory; vllm: on a GPU
    missing_eos_penalty: float = Field(default=1.0, ge=0)  # taken off the score of a completion that did not end

    value_on: ValueOn = "adapter"  # the value's own adapter, or only a head on the policy's trunk
    learning_rate: float = Field(default=5e-5, gt=0)
    value_learning_rate: float = Field(default=1e-4, gt=0)
    adam_epsilon: float = Field(default=1e-5, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    num_ppo_epochs: int = Field(default=4, gt=0)
    num_mini_batches: int = Field(default=1, gt=0)
    micro_batch_size: int = Field(default=8, gt=0)  # completions in memory at once; changes no result
    gradient_checkpointing: bool = False

    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    cliprange: float = Field(default=0.2, gt=0)
    cliprange_value: float = Field(default=0.2, gt=0)
    vf_coef: float = Field(default=0.1, gt=0)
    whiten_rewards: bool = False
    importance_cap: float = Field(default=2.0, ge=1)  # of the truncated importance weights
    max_engine_mismatch: float = Field(default=0.5, gt=0)  # nats per token from the trainer: above it the run stops

    kl_coef: float = Field(default=0.05, ge=0)
    kl_target: float | None = Field(default=None, gt=0)  # nats per token: adapt kl_coef towards it; null keeps it fixed
    kl_estimator: KLEstimator = "k1"
    max_update_kl: float | None = Field(default=None, gt=0)  # nats per token from the rollout's policy: end this update
    stop_kl: float | None = Field(default=None, gt=0)  # nats per token from the reference: end the run

    save_steps: int = Field(default=10, gt=0)  # what a killed run loses at most
    completions_steps: int = Field(default=10, gt=0)  # sample completions are written every so many steps
    report_to: list[Tracker] = Field(default_factory=list)  # metrics.jsonl is always written
