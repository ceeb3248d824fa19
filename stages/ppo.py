"""ppo: (Adapter, Completions, RewardModel, prompts) -> Adapter. Reinforcement learning, every role on one base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueup.online.settings import Settings, files_of_functions, refuse_unused, says, unused_inputs
from trueup.planning import loads
from trueup.run.artifacts import Adapter, Completions, RewardModel
from trueup.run.section import AlignmentSection
from trueup.run.stage import Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths
    from trueup.run.run_file import RunFile


class Config(Settings, AlignmentSection):
    """Alignment by PPO against a reward. The keys are those of TRL's PPOConfig where it had them; see docs/ppo.md."""


def run(
    config: Config,
    context: Context,
    policy: Adapter,
    sft: Adapter,
    completions: Completions,
    reward: RewardModel | None = None,
) -> Metrics:
    """Maximize reward - beta KL (eq. 2 of Ziegler et al. 2019) by PPO, after the reference proof; save the adapter.

    `completions`, of `policy`, give the reward model's mean and spread. Without `reward`, functions reward alone. `sft`
    is only reported against.
    """
    import torch

    from trueup import gpu
    from trueup.chat.template import Chat
    from trueup.evaluation import compare
    from trueup.models import adapters, base
    from trueup.online import prompts, rewards
    from trueup.online.ppo import loop, roles
    from trueup.sampling.sample import engine_bytes
    from trueup.sampling.types import Sampling
    from trueup.training import along, common, saving, steps

    along.refuse_too_few_kept("ppo", config, number := along.wanted(context.run))
    along.refuse_too_few_steps("ppo", number, config.num_steps, config.save_steps)
    on_gpu = torch.cuda.is_available()
    saving.refuse_without_gpu("ppo", config.optim, config.activation_offloading, on_gpu=on_gpu)
    model, tokenizer = common.load_policy(context, policy)
    asked, counts = prompts.read(context, tokenizer, config.max_prompt_tokens, config.max_new_tokens)
    on_base = roles.build(
        model,
        tokenizer,
        policy=policy.path,
        reward=reward.path if reward else None,
        value_on=config.value_on,
        temperature=config.temperature,
        combine=config.combination(),
    )
    rows, chat = completions.rows(), Chat(tokenizer)
    encoded = [chat.encode(row) for row in rows]
    scored = [(row["messages"], row["completion"]) for row in rows]
    of_model = rewards.OfModel(model, on_base.score_head, tokenizer, config.reward_batch_size) if reward else None
    parts = rewards.build(config, context.run_file_dir, of_model, scored, encoded)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    metrics = loop.train(
        on_base,
        asked,
        parts,
        config,
        start=policy.path,
        out=context.out,
        seed=context.run.seed,
        name=context.run.name,
        checkpoints=context.checkpoints,
        keep_checkpoints=config.keep_checkpoints,
    )
    longest = config.max_prompt_tokens + config.max_new_tokens
    steps.keep(model, tokenizer, context.out, probe=encoded, longest=longest)
    weights_bytes = base.weights_bytes(model) + engine_bytes(model, config.engine)
    if sft.path != policy.path:
        adapters.load_frozen(model, sft.path, "sft")
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=1.0,
        batch_size=config.rollout_batch_size,
        seed=context.run.seed,
        engine=config.engine,
    )
    kl = compare.kl_of_policy(model, tokenizer, [p.messages for p in asked[: config.rollout_batch_size]], sampling)
    return (
        metrics
        | counts
        | rewards.describe(parts)
        | kl
        | {
            "training": gpu.described(model),
            **base.computed_in(model),
            "linear4bit_layers": len(base.linear4bit_layers(model)),
            "weights_bytes": weights_bytes,
            "trainable_parameters": sum(p.numel() for p in on_base.policy_parameters() + on_base.value_parameters()),
        }
    )


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    prompt = min(values["max_prompt_tokens"], loads.longest_prompt(lengths))
    new = values["max_new_tokens"]
    own_value, members = values["value_on"] == "adapter", loads.reward_adapters(values, run)
    load = loads.Load(
        rows=values["micro_batch_size"],
        tokens=prompt + new,
        shared=min(lengths.shared_tokens, prompt),
        labelled=new,
        num_adapters=2 + members + own_value,
        num_trained=1 + own_value,
        checkpointing=values["gradient_checkpointing"],
        offloads=values["activation_offloading"],
        accumulates=True,  # PPO's gradients keep their place from step to step
        optim=values["optim"],
        cache_rows=values["rollout_batch_size"],
        cache_tokens=prompt + new,
        cache_prompt=prompt,
        copy=loads.copy_of(values["engine"]),
    )
    rollouts = values["num_steps"] * values["rollout_batch_size"]
    tokens = rollouts * ((lengths.prompt_tokens or prompt) + min(new, loads.ANSWER_TOKENS))
    work = loads.Work(
        trained_tokens=tokens * values["num_ppo_epochs"] * (1 + own_value),
        read_tokens=tokens * (3 + max(members, 1)),  # policy, reference, value, reward
        sampled_tokens=rollouts * min(new, loads.ANSWER_TOKENS),
        sampled_at_once=values["rollout_batch_size"],
    )
    return load, work


STAGE = Stage(
    name="ppo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "policy", "sft": "sft", "completions": "sample", "reward": "reward"},
    unused=unused_inputs,
    reads=("prompts",),
    code=files_of_functions,
    foresee=refuse_unused,
    says=says,
    help="Align by a reward: proximal policy optimization.",
    batch="micro_batch_size",
    fits_by=("micro_batch_size", "gradient_checkpointing"),
    apart=("keep_checkpoints",),
    length="max_new_tokens",
    plan=plan,
    two_steps={"num_steps": 2, "report_to": []},
)
