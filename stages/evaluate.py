"""evaluate: (Adapters, RewardModel, held-out prompts) -> Report. SFT against the aligned adapter, on one base."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, PositiveInt

from trueup import ranks
from trueup.evaluation.baselines import Baseline
from trueup.online.settings import RewardSettings, unused_inputs
from trueup.planning import loads
from trueup.run.artifacts import Adapter, Report, RewardModel, records, write_json, write_jsonl
from trueup.run.run_file import RunFile, Shot
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage
from trueup.sampling.types import Engine, Sampled

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths


class Config(Section):
    """How the held-out prompts are answered."""

    num_completions: PositiveInt = 2
    """Completions for each held-out prompt."""
    max_new_tokens: PositiveInt = 64
    """The maximum length of a completion, in tokens; longer ones are cut."""
    temperature: NonNegativeFloat = 1.0
    """The sampling temperature, a factor that divides the logits; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: each token is drawn from the likeliest ones that together hold this share of the probability; 1
    draws from all."""
    batch_size: PositiveInt = 64
    """Completions that are sampled at once."""
    engine: Engine = "auto"
    """What samples: `auto` is our own decoder where it knows the model, else `generate` of transformers; `merged` is
    our decoder on a copy of base plus adapter in 16 bits; `vllm` needs a GPU (see docs/sampling.md)."""
    baselines: tuple[Baseline, ...] = ()
    """What the aligned model is compared with besides SFT: the bare `base`, the base under `data.system`
    (`system_prompt`), the base shown examples (`few_shot`). None by default."""
    few_shot: tuple[Shot, ...] = ()
    """The examples of the baseline `few_shot`; by default those of `data.few_shot`."""


def run(
    config: Config,
    context: Context,
    sft: Adapter,
    reference: Adapter,
    aligned: Adapter,
    reward: RewardModel | None = None,
) -> Metrics:
    """Answer every held-out prompt with both adapters and each baseline; write answers, figures and the report.

    `reference` is what the round started from: in round 1, `sft` itself. Without `reward`, the reward functions that
    the method optimized judge.
    """
    import functools
    import os
    from collections import Counter

    from trueup.data import read_prompts
    from trueup.data.leaks import leaks
    from trueup.data.report import ReadReport, tell

    held_out = read_prompts(context.run.data, "held_out", context.run.seed, read := ReadReport())
    data_counts = tell(read, shared=leaks(context.run.data))

    # After the data: what is wrong with it is said at once.
    from trueup.chat.template import Chat
    from trueup.evaluation import baselines, compare, intervals, report
    from trueup.models import adapters, base, scoring
    from trueup.online import rewards
    from trueup.progress import bars
    from trueup.run.goal import answer_to_goal
    from trueup.sampling.kept import Kept
    from trueup.sampling.sample import engine_bytes, refuse_beyond_context, used
    from trueup.sampling.types import Sampling
    from trueup.training import curves

    method = context.run.section(context.run.method)
    parts: list[rewards.Part] = []
    if reward is None and isinstance(method, RewardSettings):  # `unused` leaves it out for no other method
        parts = rewards.build(method, context.run_file_dir, None, [])
    rows = [row for row in held_out for _ in range(config.num_completions)]
    prompts = [row["messages"] for row in rows]
    shots = config.few_shot or context.run.data.few_shot
    framed = {b: baselines.prompts(b, prompts, context.run.data, shots) for b in config.baselines}
    tokenizer = base.load_tokenizer(context.run.model)
    chat = Chat(tokenizer)
    asked = [chat.prompt(messages) for put in (prompts, *framed.values()) for messages in put]
    refuse_beyond_context(tokenizer, asked, config.max_new_tokens)
    known = context.run.model
    bare = base.load_base(known.base, four_bit=context.run.adapter.kind != "lora", dtype=known.dtype)
    model = adapters.load_adapter(bare, aligned.path, trainable=False)
    adapters.load_frozen(model, sft.path, "sft")
    if reference.path != sft.path:
        adapters.load_frozen(model, reference.path, "ref")
    head = None if reward is None else scoring.load_reward(model, reward.path)
    settings = config.model_dump(exclude={"num_completions", "baselines", "few_shot"})
    sampling = Sampling(**settings, seed=context.run.seed + 1)
    contestants: dict[str, tuple[str | None, list[baselines.Messages]]] = {
        "sft": ("sft", prompts),
        "aligned": ("default", prompts),
    }
    contestants |= {label: (None, put) for label, put in framed.items()}  # the base, adapters off
    done: dict[str, list[Sampled]] = {}
    ran: Counter[str] = Counter()
    metrics: Metrics = {}
    with bars("evaluate") as bar:

        def shown(what: str, total: int) -> Callable[[int], None]:
            return functools.partial(bar.advance, bar.add_task(what, total=total))

        for label, (name, put) in contestants.items():
            advance, kept = shown(f"answers of {label}", len(prompts)), Kept(context.out, f"answers-{label}")
            done[label], metrics[label] = compare.answers(model, tokenizer, name, put, sampling, advance, kept)
            ran.update(kept.ran)
        if head is not None:
            advance = shown("rewards", len(done) * len(prompts))
            judge, scores = "reward_model", compare.rewards_of_each(model, head, tokenizer, prompts, done, advance)
        else:
            texts = {label: [one.text for one in found] for label, found in done.items()}
            judge, scores = "reward_functions", {label: rewards.total(parts, prompts, texts[label]) for label in texts}
        advance = shown("KL", len(prompts) * (1 + (reference.path != sft.path)))
        kl = compare.kl_to_both(model, tokenizer, prompts, done["aligned"], config.temperature, advance)
    ids = [row["id"] for row in rows]
    won = {
        label: intervals.win_rate(intervals.wins(scores["aligned"], scores[label]), ids) for label in ("sft", *framed)
    }
    answers = [
        {"prompt_id": row["id"], "messages": row["messages"]}
        | {label: found[i].text for label, found in done.items()}
        | {"reward": {label: found[i] for label, found in scores.items()}}
        | {"num_tokens": {label: found[i].num_tokens for label, found in done.items()}}
        | {"ids": {label: found[i].ids for label, found in done.items()}}
        | {"finish": {label: found[i].finish for label, found in done.items()}}
        for i, row in enumerate(rows)
    ]
    write_jsonl(context.out / "answers.jsonl", answers)
    figures = (
        metrics
        | kl
        | {"kl_temperature": config.temperature or 1.0, "sampling": used(sampling, tokenizer, model, ran)}
        | {
            f"win_rate_by_{judge}": won["sft"],
            "reward_functions": {part.name: part.weight for part in parts},
            "win_rates_over": won,
            "goal": answer_to_goal(context.run.goal.model_dump(), won["sft"], kl["kl_nats_per_token"]),
            "linear4bit_layers": len(base.linear4bit_layers(model)),
            "weights_bytes": base.weights_bytes(model) + engine_bytes(model, config.engine),
            "data": data_counts,
        }
    )
    if not ranks.is_first():
        return figures
    write_json(context.out / "report.json", figures)
    title = f"{context.run.name}: SFT against {context.run.method}"
    made = records(context.run_dir, context.run.round, before="evaluate", variant=context.run.variant)
    drawn = curves.write(context.run_dir, context.run.name)
    report.write(
        context.out / "report.html",
        title=title,
        figures=figures,
        answers=answers,
        records=made,
        curves=None if drawn is None else os.path.relpath(drawn, context.out),
    )
    return figures


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """The verdict, and the goal of the run file against it."""
    from trueup.run.goal import answer_to_goal, goal_lines, verdict, won_by

    won = won_by(metrics)
    wide = won["high"] - won["low"]
    functions = " + ".join(f"{weight:g} x {name}" for name, weight in metrics.get("reward_functions", {}).items())
    return [
        verdict(won),
        *([f"warning: the judge is what was optimized, {functions}; nobody else was asked"] if functions else []),
        *([f"warning: the interval is {wide:.0%} wide; more held-out prompts narrow it"] if wide > 0.2 else []),
        *goal_lines(answer_to_goal(run.goal.model_dump(), won, metrics["kl_nats_per_token"])),
    ]


def unused(config: Config, run: RunFile) -> tuple[str, ...]:
    """No reward model, where the method was rewarded by functions alone."""
    method = run.section(run.method)
    return unused_inputs(method, run) if isinstance(method, RewardSettings) else ()


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    load, once = loads.sampling(values, lengths, lengths.num_held_out or loads.FALLBACK_ROWS, num_adapters=3)
    read = 2 * once.read_tokens + 4 * (once.read_tokens + once.sampled_tokens)  # prompts; rewards and both of the KL
    return load, loads.Work(
        read_tokens=read, sampled_tokens=2 * once.sampled_tokens, sampled_at_once=once.sampled_at_once
    )


STAGE = Stage(
    name="evaluate",
    config=Config,
    makes=Report,
    run=run,
    needs={"sft": "sft", "reference": "policy", "aligned": "aligned", "reward": "reward"},
    unused=unused,
    reads=("held_out",),
    says=says,
    help="Is it better, by how much.",
    batch="batch_size",
    fits_by=("batch_size",),
    plan=plan,
)
