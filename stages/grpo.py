"""grpo: (Adapter, Completions, RewardModel, prompts) -> Adapter. TRL's GRPO, the reward an adapter on the same base."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from trueup.artifacts import Adapter, Completions, RewardModel
from trueup.ppo.settings import RewardSettings
from trueup.stage import Context, Metrics, Stage


class Config(RewardSettings):
    """Field names are trl.GRPOConfig's own. Temperature 1: the policy that samples is the one trained."""

    beta: float = Field(default=0.04, gt=0)  # KL coefficient: the pull toward the reference
    learning_rate: float = 5e-5
    max_steps: int = 60
    num_generations: int = 8  # completions a prompt: the group an advantage is relative to
    per_device_train_batch_size: int = 32  # completions a step
    num_iterations: int = 1  # updates on one rollout
    max_completion_length: int = 64  # tokens
    max_prompt_tokens: int = 256  # longer prompts are left out, counted and named
    save_steps: int = 10  # optimizer steps between checkpoints: what a killed run loses at most


def run(
    config: Config, context: Context, policy: Adapter, completions: Completions, reward: RewardModel | None = None
) -> Metrics:
    """Maximize eq. 3 of Shao et al. 2024 after the reference proof; save the adapter."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from trueup.data import read_prompts
    from trueup.models import scoring
    from trueup.ppo import loop, rewards
    from trueup.training import common, proof

    rows = read_prompts(context.run.data, seed=context.run.seed)
    model, tokenizer = common.load_policy(context, policy)
    prompts, too_long = loop.encode(tokenizer, rows, config.max_prompt_tokens)
    of_model = None
    if reward is not None and config.reward_model_weight != 0:
        rewards.refuse_another_base(policy.path, reward.path)
        head = scoring.load_reward(model, reward.path)
        of_model = rewards.of_model(model, head, tokenizer, config.reward_batch_size)
    scored = [(row["messages"], row["completion"]) for row in completions.rows()]
    parts = rewards.build(config, context.run_dir.parents[1], of_model, scored)
    options = config.model_dump(exclude={*RewardSettings.model_fields, "max_prompt_tokens"})
    trainer = GRPOTrainer(
        model=model,  # no ref_model: TRL freezes a copy of this adapter, on the same base
        processing_class=tokenizer,
        reward_funcs=[_as_trl(part) for part in parts],
        args=GRPOConfig(**common.trainer_args(context), **options),
        train_dataset=Dataset.from_list([{"prompt": prompt.messages} for prompt in prompts]),
    )
    common.make_ready(trainer, policy)
    proven = proof.prove(trainer.model, policy.path)
    metrics = common.train(trainer)
    common.save_adapter(trainer, context.out)
    proof.record_probe(model, tokenizer, [{"messages": m, "completion": c} for m, c in scored], context.out)
    steps = [log for log in trainer.state.log_history if "reward" in log]
    return metrics | {
        "reference_proof": proven,
        "first_reward": steps[0]["reward"],
        "last_reward": steps[-1]["reward"],
        "last_kl": steps[-1].get("kl"),
        "num_prompts": len(prompts),
        "num_prompts_too_long": len(too_long),
        "prompts_too_long": too_long[:20],
        "reward_parts": [{"name": p.name, "weight": p.weight, "mean": p.mean, "spread": p.spread} for p in parts],
    }


def _as_trl(part: Any) -> Callable[..., list[float]]:
    """A term of the reward as TRL calls it: completions come as lists of one assistant message."""

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        scores: list[float] = part(prompts, [completion[0]["content"] for completion in completions])
        return scores

    reward.__name__ = part.name
    return reward


STAGE = Stage(
    name="grpo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "sft", "completions": "sample", "reward": "reward"},
    reads=("prompts",),
    alignment=True,
)
