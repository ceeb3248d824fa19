"""grpo: (Adapter, Completions, RewardModel, prompts) -> Adapter. TRL's GRPO, the reward an adapter on the same base."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from trueup import ranks
from trueup.online.settings import RewardSettings, Tracker, files_of_functions, refuse_unused, says, unused_inputs
from trueup.planning import loads
from trueup.run.artifacts import Adapter, Completions, RewardModel
from trueup.run.section import AlignmentSection, TrainerSection
from trueup.run.stage import Context, Metrics, Stage
from trueup.sampling.types import Engine

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths
    from trueup.run.run_file import RunFile


class Config(RewardSettings, AlignmentSection, TrainerSection):
    """Alignment by GRPO against a reward, at temperature 1: the policy that samples is the one that trains.

    Most keys are those of trl.GRPOConfig.
    """

    arguments_of = "trl.trainer.grpo_config.GRPOConfig"
    set_elsewhere: ClassVar = dict.fromkeys(
        ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "reward_weights"),
        "the policy that samples is the one trained; rewards are weighted in reward_functions",
    ) | {"use_vllm": "set engine: vllm"}

    beta: float = Field(default=0.04, gt=0)
    """The KL coefficient, without a unit: the larger it is, the nearer the policy stays to the reference."""
    learning_rate: PositiveFloat = 5e-5
    """The learning rate of AdamW at the first step, without a unit; it falls linearly to 0."""
    max_steps: PositiveInt = 60
    """The number of optimizer steps."""
    num_generations: int = Field(default=8, ge=2)
    """Completions for each prompt: the group within which rewards are compared."""
    per_device_train_batch_size: PositiveInt = 32
    """Completions in memory at once; a multiple of `num_generations`."""
    num_iterations: PositiveInt = 1
    """Optimizer steps on each rollout."""
    max_completion_length: PositiveInt = 64
    """The maximum length of a completion, in tokens; longer ones are cut."""
    save_steps: PositiveInt = 10
    """Optimizer steps between two checkpoints, rounded up to whole rollouts: a killed run loses at most these."""

    engine: Engine = "auto"
    """What samples the rollouts: `auto` is our own decoder where it knows the model, else `generate` of transformers;
    `merged` is our decoder on a copy of base plus adapter in 16 bits; `vllm` needs a GPU (see docs/sampling.md)."""
    max_engine_mismatch: float = Field(default=0.5, gt=0)
    """The largest mean difference between the engine's and the trainer's log-probabilities, in nats per token, on a GPU
    and with vLLM; above it the run stops, or goes on with `generate` where the engine is `auto`."""
    max_prompt_tokens: PositiveInt = 256
    """The maximum length of a prompt, in tokens; longer prompts are left out, counted and named."""
    completions_steps: int = Field(default=10, gt=0)
    """Optimizer steps between two of those whose completions are written to completions.jsonl."""
    report_to: list[Tracker] = Field(default=[])
    """Where the metrics of each step go besides metrics.jsonl: `tensorboard`, `trackio` or `wandb`, which have to be
    installed. Nowhere by default."""


OURS = {
    *RewardSettings.model_fields,
    *("engine", "max_engine_mismatch", "max_prompt_tokens", "completions_steps", "report_to"),
}


def run(
    config: Config,
    context: Context,
    policy: Adapter,
    sft: Adapter,
    completions: Completions,
    reward: RewardModel | None = None,
) -> Metrics:
    """Maximize eq. 3 of Shao et al. 2024 after the reference proof; save the adapter; report KL to `sft` as well."""
    from datasets import Dataset
    from trl import GRPOConfig

    from trueup.chat.template import Chat
    from trueup.evaluation import compare
    from trueup.models import adapters, scoring
    from trueup.online import prompts, rewards, watch
    from trueup.online.grpo import ResumableGRPOTrainer, between_rollouts
    from trueup.online.log import Log, summary
    from trueup.sampling.types import Sampling
    from trueup.training import checkpoints, common, steps

    args = common.arguments(GRPOConfig, context, config, ours=OURS)
    args.save_steps = between_rollouts(args)
    model, tokenizer = common.load_policy(context, policy)
    asked, counts = prompts.read(context, tokenizer, config.max_prompt_tokens, config.max_completion_length)
    of_model = None
    if reward is not None:
        rewards.refuse_another_base(policy.path, reward.path)
        head = scoring.load_reward(model, reward.path, config.combination())
        of_model = rewards.OfModel(model, head, tokenizer, config.reward_batch_size)
    rows, chat = completions.rows(), Chat(tokenizer)
    encoded = [chat.encode(row) for row in rows]
    scored = [(row["messages"], row["completion"]) for row in rows]
    parts = rewards.build(config, context.run_file_dir, of_model, scored, encoded)
    begun = checkpoints.step_of(ranks.from_first(lambda: checkpoints.latest_whole(context.checkpoints)))
    log = Log(context.out, config.report_to, context.run.name, begun)
    watching = watch.Watch(log, parts, config.completions_steps, tokenizer)
    batch = config.per_device_train_batch_size
    sampling = Sampling(
        max_new_tokens=config.max_completion_length,
        temperature=1.0,
        top_p=1.0,
        batch_size=args.generation_batch_size,
        seed=context.run.seed,
        engine=config.engine,
        max_mismatch=config.max_engine_mismatch,
    )
    trainer = ResumableGRPOTrainer(
        model=model,  # no ref_model: TRL freezes a copy of this adapter, on the same base
        processing_class=tokenizer,
        reward_funcs=watching.reward_funcs(),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": prompt.messages} for prompt in asked]),
        callbacks=[watching],
        sampling=sampling,
    )
    metrics = steps.train(
        trainer,
        context,
        start=policy,
        reference=policy,
        with_entropy=True,
        own_log=True,
        probe=encoded,
        longest=config.max_prompt_tokens + config.max_completion_length,
    )
    logged = log.finish()
    if sft.path != policy.path:
        adapters.load_frozen(model, sft.path, "sft")
    kl = compare.kl_of_policy(model, tokenizer, [p.messages for p in asked[:batch]], sampling)
    return (
        metrics
        | summary(logged)
        | counts
        | rewards.describe(parts)
        | kl
        | {
            "num_torn_log_lines": log.num_torn,
            "rollouts_by": dict(trainer.rollouts_by),
            "num_steps": metrics["num_steps"],  # a rollout that trains several steps has one row
        }
    )


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    prompt = min(values["max_prompt_tokens"], loads.longest_prompt(lengths))
    new, rows = values["max_completion_length"], values["per_device_train_batch_size"]
    members = loads.reward_adapters(values, run)
    load = loads.Load(
        rows=rows,
        tokens=prompt + new,
        shared=min(lengths.shared_tokens, prompt),
        labelled=new,
        num_adapters=2 + members,
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
        offloads=values["activation_offloading"],
        optim=values["optim"],
        cache_rows=rows,
        cache_tokens=prompt + new,
        cache_prompt=prompt,
        copy=loads.copy_of(values["engine"]),
    )
    answers = values["max_steps"] * rows
    tokens = answers * ((lengths.prompt_tokens or prompt) + min(new, loads.ANSWER_TOKENS))
    work = loads.Work(
        trained_tokens=tokens * values["num_iterations"],
        read_tokens=(1 + max(members, 1)) * tokens,
        sampled_tokens=answers * min(new, loads.ANSWER_TOKENS),
        sampled_at_once=rows,
    )
    return load, work


STAGE = Stage(
    name="grpo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "policy", "sft": "sft", "completions": "sample", "reward": "reward"},
    unused=unused_inputs,
    reads=("prompts",),
    code=files_of_functions,
    foresee=refuse_unused,
    says=says,
    help="Align by a reward: group relative policy optimization.",
    batch="per_device_train_batch_size",
    apart=("keep_checkpoints",),
    smallest_batch=lambda values: int(values["num_generations"]),
    length="max_completion_length",
    plan=plan,
)
