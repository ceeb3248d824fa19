"""ppo: (Adapter, Completions, RewardModel, prompts) -> Adapter. Reinforcement learning, every role on one base."""

from trueup.artifacts import Adapter, Completions, RewardModel
from trueup.ppo.settings import Settings
from trueup.stage import Context, Metrics, Stage


class Config(Settings):
    """Field names are those of TRL's PPOConfig where it had them; see docs/ppo.md."""


def run(
    config: Config, context: Context, policy: Adapter, completions: Completions, reward: RewardModel | None = None
) -> Metrics:
    """Maximize reward - beta KL (eq. 2 of Ziegler et al. 2019) by PPO, after the reference proof; save the adapter.

    `completions`, of the SFT policy, give the reward model's mean and spread. Without `reward`, functions reward alone.
    """
    from trueup.data import read_prompts
    from trueup.models import base
    from trueup.ppo import loop, rewards, roles
    from trueup.training import common, proof

    if config.reward_model_weight == 0:
        reward = None
    rows = read_prompts(context.run.data, seed=context.run.seed)
    model, tokenizer = common.load_policy(context, policy)
    prompts, too_long = loop.encode(tokenizer, rows, config.max_prompt_tokens)
    on_base = roles.build(
        model,
        tokenizer,
        policy=policy.path,
        reward=reward.path if reward else None,
        value_on=config.value_on,
        temperature=config.temperature,
    )
    scored = [(row["messages"], row["completion"]) for row in completions.rows()]
    of_model = (
        rewards.of_model(model, on_base.score_head, tokenizer, config.reward_batch_size) if reward is not None else None
    )
    folder = context.run_dir.parents[1]  # the run file's
    parts = rewards.build(config, folder, of_model, scored)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    metrics = loop.train(
        on_base,
        prompts,
        parts,
        config,
        start=policy.path,
        out=context.out,
        seed=context.run.seed,
        name=context.run.name,
    )
    model.save_pretrained(str(context.out), selected_adapters=["default"], safe_serialization=True)
    proof.record_probe(model, tokenizer, [{"messages": m, "completion": c} for m, c in scored], context.out)
    return metrics | {
        "num_prompts": len(prompts),
        "num_prompts_too_long": len(too_long),
        "prompts_too_long": too_long[:20],
        "reward_parts": [{"name": p.name, "weight": p.weight, "mean": p.mean, "spread": p.spread} for p in parts],
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model),
        "trainable_parameters": sum(p.numel() for p in on_base.policy_parameters() + on_base.value_parameters()),
    }


STAGE = Stage(
    name="ppo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "sft", "completions": "sample", "reward": "reward"},
    reads=("prompts",),
    alignment=True,
)
