"""sample: (prompts, Adapter, RewardModel) -> Completions. What people will judge, from the current policy."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from trueup.errors import ConfigError
from trueup.evaluation import best_of
from trueup.online.settings import by_functions
from trueup.planning import loads
from trueup.run import enough
from trueup.run.artifacts import Adapter, Completions, RewardModel, write_jsonl
from trueup.run.chain import EARLIER_REWARD
from trueup.run.files import read_appended
from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage
from trueup.sampling.types import Engine, Sampled

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths


class Config(Section):
    """How many completions people will judge, and how these are sampled."""

    num_completions: PositiveInt = 4
    """Completions for each prompt."""
    best_of: int = 0
    """Completions that are sampled for each one that people judge, which is the one with the highest reward: the reward
    model's of the round before, or that of the method's functions. 4, for instance; off by default (0)."""
    max_new_tokens: PositiveInt = 64
    """The maximum length of a completion, in tokens; longer ones are cut and counted."""
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

    @field_validator("best_of")
    @classmethod
    def _several(cls, n: int) -> int:
        return best_of.several(n)

    @model_validator(mode="after")
    def _of_answers_that_differ(self) -> Self:
        best_of.refuse_greedy(self.best_of, self.temperature)
        return self


def run(config: Config, context: Context, policy: Adapter, reward: RewardModel | None = None) -> Metrics:
    """Sample `num_completions` answers per prompt, seeded; write their text, log-probability and how they ended.

    With `best_of`, each of them is the best of so many, by `reward` or, without it, by the method's functions.
    """
    import click

    foresee(config, context)

    from trueup.data import read_prompts
    from trueup.data.report import ReadReport, tell

    report = ReadReport()
    found = read_prompts(context.run.data, seed=context.run.seed, report=report)
    prompts = [row for row in found for _ in range(config.num_completions)]
    read = tell(report)

    from trueup.chat import preflight  # after the data: what is wrong with it is said at once
    from trueup.models import adapters, base
    from trueup.progress import bars
    from trueup.sampling.kept import Kept
    from trueup.sampling.sample import cut_answers, engine_bytes, sample, used
    from trueup.sampling.types import Sampling

    tokenizer = base.load_tokenizer(context.run.model)
    named = ((row["id"], row["messages"]) for row in found)
    checked = preflight.check_prompts(
        tokenizer, named, [], context, config.max_new_tokens, base.warnings(context.run.model)
    )
    known = context.run.model
    bare = base.load_base(known.base, four_bit=context.run.adapter.kind != "lora", dtype=known.dtype)
    model = adapters.load_adapter(bare, policy.path, trainable=False)
    sampling = Sampling(**config.model_dump(exclude={"num_completions", "best_of"}), seed=context.run.seed)
    kept, n = Kept(context.out, "completions"), config.best_of or 1
    with bars("sample") as bar:
        task = bar.add_task("completions", total=n * len(prompts))
        asked = [prompt["messages"] for prompt in prompts for _ in range(n)]
        every = sample(model, tokenizer, asked, sampling, lambda number: bar.advance(task, number), kept)
        done, chosen = every, Metrics()
        if n > 1:
            done, chosen = _best(context, model, tokenizer, reward, asked, every, n, bar)
    rows = []
    for prompt, uid, answer in zip(
        prompts, uids((p["id"], a.text) for p, a in zip(prompts, done, strict=True)), done, strict=True
    ):
        rows.append(
            {"uid": uid, "prompt_id": prompt["id"], "messages": prompt["messages"], "completion": answer.text}
            | {"ids": answer.ids, "num_tokens": answer.num_tokens, "logp": answer.logp, "finish": answer.finish}
        )
    write_jsonl(context.out / "completions.jsonl", rows)
    num_tokens = sum(answer.num_tokens for answer in every)
    num_cut = sum(answer.finish == "length" for answer in done)
    if num_cut:
        click.echo(cut_answers(num_cut, len(done), config.max_new_tokens))
    return {
        "num_completions": len(rows),
        "num_prompts": len(rows) // config.num_completions,
        "num_resumed": kept.num_resumed,
        "tokens_per_s": num_tokens / kept.seconds,
        "eos_rate": 1 - num_cut / len(done),
        "num_cut_answers": num_cut,
        "sampling": used(sampling, tokenizer, model, kept.ran),
        "preflight": checked,
        "mean_length_tokens": sum(answer.num_tokens for answer in done) / len(done),
        **chosen,
        "weights_bytes": base.weights_bytes(model) + engine_bytes(model, config.engine),
        "data": read,
    }


def _best(
    context: Context, model: Any, tokenizer: Any, reward: RewardModel | None, asked: Any, every: Any, n: int, bar: Any
) -> tuple[list[Sampled], Metrics]:
    """(the best of each n answers by the reward, what was gained by that)."""
    from trueup.judges.optimized import of_run

    task = bar.add_task("rewards", total=len(every))
    judge = of_run(context, model, tokenizer, None if reward is None else reward.path)
    places, found = judge.best(asked[::n], every, n, lambda number: bar.advance(task, number))
    best = [max(found[start : start + n]) for start in range(0, len(found), n)]
    gained = {"of_all": sum(found) / len(found), "of_best": sum(best) / len(best)}
    return [every[i] for i in places], {"best_of": {"n": n, "num_sampled": len(every), "mean_reward": gained}}


def uids(answers: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A name for each (prompt id, text): the same text to the same prompt has the same, however it was sampled.

    So judgements of it still count when completions are sampled again. A text that comes twice has two names.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for prompt_id, text in answers:
        yield hashlib.sha256(f"{prompt_id}\0{seen[prompt_id, text]}\0{text}".encode()).hexdigest()[:20]
        seen[prompt_id, text] += 1


def unused(config: Config, run: RunFile) -> tuple[str, ...]:
    """No reward model, unless the best of several completions is chosen by it; in round 1 there is none."""
    return ("reward",) if not config.best_of or run.round == 1 or by_functions(run) else ()


def foresee(config: Config, context: Context) -> None:
    """Raises ConfigError where there is no reward yet to choose the best completion by."""
    if config.best_of and context.run.round == 1 and not by_functions(context.run):
        raise ConfigError(
            "sample.best_of",
            found=f"{config.best_of}, and no reward to choose by: that of round 1 learns from what people say of these",
            expected="round 2 or later, or a method that reward functions alone reward",
            next_step="leave sample.best_of out in round 1, and set it from round 2 on",
        )


def judged(run_dir: Path, folder: Path) -> int:
    """How many of the completions in `folder` people have judged."""
    completions, _ = read_appended(folder / "completions.jsonl")
    annotations, _ = read_appended(run_dir / "store" / "annotations.jsonl")
    said = {row.get(name) for row in annotations for name in ("uid", "a", "b")}  # a and b: of a comparison
    return len({row.get("uid") for row in completions} & (said - {None}))


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How many there are to judge, how long they are, and how many were cut."""
    cut, number, length = 1 - metrics["eos_rate"], metrics["num_completions"], metrics["mean_length_tokens"]
    num_prompts = metrics.get("num_prompts", enough.JUDGED_PROMPTS)
    return [
        f"{number:,} completions, {length:.0f} tokens long on average; {cut:.0%} were cut at sample.max_new_tokens",
        *_chosen(metrics),
        *enough.few(num_prompts, enough.JUDGED_PROMPTS, "prompts to judge answers to"),
    ]


def _chosen(metrics: Metrics) -> list[str]:
    if (best := metrics.get("best_of")) is None:
        return []
    n, gained = best["n"], best["mean_reward"]
    rewards = f"mean reward {gained['of_best']:.2f}, and {gained['of_all']:.2f} of all {best['num_sampled']:,}"
    return [f"each is the best of {n} by the reward: {rewards}"]


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    n, prompts = values["best_of"] or 1, lengths.num_prompts or loads.FALLBACK_ROWS
    every = values | {"num_completions": n * values["num_completions"]}
    load, work = loads.sampling(every, lengths, prompts, num_adapters=1 + (n > 1))
    scored = work.read_tokens + work.sampled_tokens if n > 1 else 0
    return load, replace(work, read_tokens=work.read_tokens + scored)


STAGE = Stage(
    name="sample",
    config=Config,
    makes=Completions,
    run=run,
    needs={"policy": "policy", "reward": EARLIER_REWARD},
    unused=unused,
    foresee=foresee,
    flags=("best_of",),
    reads=("prompts",),
    judged=judged,
    says=says,
    help="Completions to judge, from the current policy.",
    batch="batch_size",
    fits_by=("batch_size",),
    plan=plan,
)
