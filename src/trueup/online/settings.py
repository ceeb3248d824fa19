"""What the run file says about PPO. Free of torch, so that reading a run file is fast."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from trueup.errors import ConfigError
from trueup.models.combining import Combination, Rule
from trueup.run.run_file import RunFile
from trueup.run.section import Section, offloads_checkpoints
from trueup.run.stage import Context, Metrics
from trueup.sampling.types import Engine

KLEstimator = Literal["k1", "k2", "k3"]
ValueOn = Literal["adapter", "trunk"]
Tracker = Literal["tensorboard", "trackio", "wandb"]


class RewardSettings(Section):
    """What is rewarded: the weighted sum of the reward model and of any Python functions."""

    reward_model_weight: float = 1.0
    """The weight of the reward model's score, which is first normalized to a mean of 0 and a spread of 1; with 0 there
    is no reward model, and no thumbs are needed."""
    reward_functions: dict[str, float] = Field(default={})
    """Python functions that reward, each with its weight: `{module:function: 1.0}`. The folder of the run file is
    searched first. None by default."""
    reward_batch_size: int = Field(default=16, gt=0)
    """Conversations that the reward model scores at once."""
    num_reward_samples: int = Field(default=128, gt=1)
    """Completions of `sample` on which the reward model's score is normalized."""
    combine: Rule = "mean"
    """How the members of the reward model make one reward, where `reward.members` is above 1: `mean`, their mean;
    `min`, the smallest; `mean_minus_variance`, the mean less `variance_coefficient` times the variance over members."""
    variance_coefficient: float = Field(default=0.1, gt=0)
    """What each unit of variance over the members costs with `combine: mean_minus_variance`, in units of the reward.
    Members' scores are first brought to a mean of 0 and a spread of 1."""

    @model_validator(mode="after")
    def _combines_something(self) -> Self:
        given = self.model_fields_set
        if "variance_coefficient" in given and self.combine != "mean_minus_variance":
            raise ValueError(
                f"variance_coefficient is for combine: mean_minus_variance alone, and it is {self.combine}"
            )
        if self.combine != "mean" and self.reward_model_weight == 0:
            raise ValueError(
                f"combine: {self.combine} is for a reward model, and reward_model_weight is 0: there is none"
            )
        return self

    def combination(self) -> Combination:
        """How several members of the reward model make one reward."""
        return Combination(self.combine, self.variance_coefficient)


def combination(run: RunFile) -> Combination:
    """How the run's method combines the members of its reward model; the mean where it optimizes none."""
    method = run.section(run.method)
    return method.combination() if isinstance(method, RewardSettings) else Combination()


def refuse_unused(config: RewardSettings, context: Context) -> None:
    """Raises ConfigError where a single reward model cannot be combined as asked."""
    if config.combine != "mean" and context.run.section("reward").model_dump()["members"] == 1:
        raise ConfigError(
            f"{context.stage}.combine",
            found=f"{config.combine}, and reward.members 1",
            expected="several members to combine",
            next_step=f"--set reward.members=5, or leave {context.stage}.combine out",
        )


def unused_inputs(config: RewardSettings, run: RunFile) -> tuple[str, ...]:
    """Functions alone reward: no reward model is needed."""
    return ("reward",) if config.reward_model_weight == 0 else ()


def by_functions(run: RunFile) -> bool:
    """Whether functions alone reward the run's method."""
    method = run.section(run.method)
    return isinstance(method, RewardSettings) and bool(unused_inputs(method, run))


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

    num_steps: int = Field(default=60, gt=0)
    """The number of steps, each of which samples a rollout and then trains on it."""
    rollout_batch_size: int = Field(default=32, gt=0)
    """Completions of a rollout, one for each prompt."""
    max_prompt_tokens: int = Field(default=256, gt=0)
    """The maximum length of a prompt, in tokens; longer prompts are left out, counted and named."""
    max_new_tokens: int = Field(default=64, gt=0)
    """The maximum length of a completion, in tokens; longer ones are cut."""
    temperature: float = Field(default=1.0, gt=0)
    """The sampling temperature, a factor that divides the logits. Top-p and top-k are off, since they would sample from
    another policy than the one that trains."""
    engine: Engine = "auto"
    """What samples the rollouts: `auto` is our own decoder where it knows the model, else `generate` of transformers;
    `merged` is our decoder on a copy of base plus adapter in 16 bits; `vllm` needs a GPU (see docs/sampling.md)."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """What is taken off the score of a completion that did not end by itself, in units of the reward."""

    value_on: ValueOn = "adapter"
    """Where the value is computed: on an `adapter` of its own, or by a head on the `trunk` of the policy, which takes
    less time and memory."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """The policy's learning rate at the first step, without a unit; it falls linearly to 0."""
    value_learning_rate: float = Field(default=1e-4, gt=0)
    """The value's learning rate at the first step, without a unit; it falls linearly to 0."""
    adam_epsilon: float = Field(default=1e-5, gt=0)
    """The epsilon of AdamW: a number added to the root of the second moment, without a unit."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The largest norm of the policy's gradient, and of the value's, without a unit; longer gradients are scaled down
    to it."""
    num_ppo_epochs: int = Field(default=4, gt=0)
    """Passes over each rollout (epochs)."""
    num_mini_batches: int = Field(default=1, gt=0)
    """Optimizer steps in each pass: the number of minibatches that a rollout is split into."""
    micro_batch_size: int = Field(default=8, gt=0)
    """Completions in memory at once while training; it changes no result."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, and about a third more time.
    """
    activation_offloading: bool = False
    """Keep the hidden states that gradient checkpointing saves in the memory of the CPU until the backward pass: less
    memory on a GPU, more on its host, and some percent more time. Needs `gradient_checkpointing` and a GPU."""
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_torch"
    """The optimizer: `adamw_torch` has moments in fp32, `adamw_8bit` keeps them in 8 bits (a quarter of the memory),
    and `paged_adamw_8bit` lets these leave the GPU while its memory is short; the last two are bitsandbytes'."""

    gamma: float = Field(default=1.0, gt=0, le=1)
    """The discount factor of rewards, per token: 1 discounts nothing."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalized advantage estimation, a factor per token."""
    cliprange: float = Field(default=0.2, gt=0)
    """How far the ratio of a token's probabilities, new to old, may move from 1 before it is clipped, a share."""
    cliprange_value: float = Field(default=0.2, gt=0)
    """How far the value may move from its old one before it is clipped, in units of the reward."""
    vf_coef: float = Field(default=0.1, gt=0)
    """The weight of the value's loss in the sum of losses."""
    whiten_rewards: bool = False
    """Whether rewards are scaled to a variance of 1 over the tokens of a rollout."""
    importance_cap: float = Field(default=2.0, ge=1)
    """The largest importance weight of a token, a ratio of the trainer's probability to the engine's."""
    max_engine_mismatch: float = Field(default=0.5, gt=0)
    """The largest mean difference between the engine's and the trainer's log-probabilities, in nats per token; above it
    the run stops."""

    kl_coef: float = Field(default=0.05, ge=0)
    """The KL coefficient, without a unit: what each nat of divergence from the reference costs, in units of the reward.
    """
    kl_target: float | None = Field(default=None, gt=0)
    """The KL divergence from the reference that `kl_coef` is adapted to reach, in nats per token; by default `kl_coef`
    stays as it is."""
    kl_estimator: KLEstimator = "k1"
    """Schulman's estimator of the KL divergence on each token: `k1` (unbiased), `k2` (lower variance, biased) or `k3`
    (unbiased, never negative)."""
    max_update_kl: float | None = Field(default=None, gt=0)
    """The largest KL divergence from the policy that sampled the rollout, in nats per token: above it the passes over
    this rollout end. No limit by default."""
    stop_kl: float | None = Field(default=None, gt=0)
    """The largest KL divergence from the reference, in nats per token: above it the run ends. No limit by default."""

    save_steps: int = Field(default=10, gt=0)
    """Steps between two checkpoints: a killed run loses at most these."""
    completions_steps: int = Field(default=10, gt=0)
    """Steps between two of those whose completions are written to completions.jsonl."""
    report_to: list[Tracker] = Field(default=[])
    """Where the metrics of each step go besides metrics.jsonl: `tensorboard`, `trackio` or `wandb`, which have to be
    installed. Nowhere by default."""

    @model_validator(mode="after")
    def _offloads_checkpoints(self) -> Self:
        return offloads_checkpoints(self)
