"""evaluate: (Adapters, RewardModel, held-out prompts) -> Report. SFT against the aligned adapter, on one base."""

from typing import Literal

from trueup.artifacts import Adapter, Report, RewardModel, write_json, write_jsonl
from trueup.stage import Context, Metrics, Section, Stage


class Config(Section):
    """How the held-out prompts are answered."""

    num_completions: int = 2
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 64
    engine: Literal["auto", "merged", "generate"] = "auto"  # merged: faster, with a bf16 copy in memory


def run(config: Config, context: Context, policy: Adapter, aligned: Adapter, reward: RewardModel) -> Metrics:
    """Answer every held-out prompt with both adapters; write answers, win rate, KL, lengths and EOS rates."""
    import functools

    from trueup.data import read_prompts
    from trueup.evaluation import compare, intervals
    from trueup.evaluation.goal import answer_to_goal
    from trueup.models import adapters, base, scoring
    from trueup.progress import bars
    from trueup.rollout.generate import Sampling
    from trueup.training import fast_cpu

    held_out = read_prompts(context.run.data, "held_out", context.run.seed)
    rows = [row for row in held_out for _ in range(config.num_completions)]
    prompts = [row["messages"] for row in rows]
    bare = base.load_base(context.run.model.base, four_bit=context.run.adapter.kind != "lora")
    tokenizer = base.load_tokenizer(context.run.model.base)
    model = adapters.load_adapter(bare, aligned.path, trainable=False)
    model.load_adapter(str(policy.path), "sft")
    adapters.trainable_to_fp32(model)
    fast_cpu.install(model)
    head = scoring.load_reward(model, reward.path)
    sampling = Sampling(**config.model_dump(exclude={"num_completions"}), seed=context.run.seed + 1)
    texts, scores, metrics = {}, {}, {}
    with bars("evaluate") as bar:
        for label, name in (("sft", "sft"), ("aligned", "default")):
            advance = functools.partial(bar.advance, bar.add_task(f"answers of {label}", total=len(prompts)))
            done, metrics[label] = compare.answers(model, tokenizer, name, prompts, sampling, advance)
            texts[label] = [answer.text for answer in done]
            scores[label] = compare.rewards(model, head, tokenizer, prompts, texts[label])
    kl = compare.kl_per_token(model, tokenizer, "default", "sft", prompts, texts["aligned"])
    outcomes = intervals.wins(scores["aligned"], scores["sft"])
    win_rate = intervals.win_rate(outcomes, [row["id"] for row in rows], context.run.seed)
    write_jsonl(
        context.out / "answers.jsonl",
        (
            {"prompt_id": row["id"], "messages": row["messages"], "sft": s, "aligned": a}
            for row, s, a in zip(rows, texts["sft"], texts["aligned"], strict=True)
        ),
    )
    report = metrics | {
        "win_rate_by_reward_model": win_rate,
        "kl_nats_per_token": kl,
        "goal": answer_to_goal(context.run.goal.model_dump(), win_rate, kl),
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model),
    }
    write_json(context.out / "report.json", report)
    return report


STAGE = Stage(
    name="evaluate",
    config=Config,
    makes=Report,
    run=run,
    needs={"policy": "sft", "aligned": "aligned", "reward": "reward"},
    reads=("held_out",),
)
