"""sample: (prompts, Adapter) -> Completions. What people will judge, from the current policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, PositiveInt

from trueup.planning import loads
from trueup.run.artifacts import Adapter, Completions, write_jsonl
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage
from trueup.sampling.types import Engine

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths
    from trueup.run.run_file import RunFile


class Config(Section):
    """How many completions, and how they are sampled."""

    num_completions: PositiveInt = 4  # a prompt
    max_new_tokens: PositiveInt = 64
    temperature: NonNegativeFloat = 1.0  # 0: greedy
    top_p: float = Field(default=1.0, gt=0, le=1)
    batch_size: PositiveInt = 64
    engine: Engine = "auto"  # merged: faster, with a dense copy in memory; vllm: on a GPU


def run(config: Config, context: Context, policy: Adapter) -> Metrics:
    """Sample `num_completions` answers a prompt, seeded; write their text, log-probability and how they ended."""
    import hashlib
    import time

    import click

    from trueup.data import read_prompts
    from trueup.models import adapters, base
    from trueup.progress import bars
    from trueup.sampling.sample import cut_answers, engine_bytes, sample, used
    from trueup.sampling.types import Sampling

    prompts = [
        row for row in read_prompts(context.run.data, seed=context.run.seed) for _ in range(config.num_completions)
    ]
    bare = base.load_base(context.run.model.base, four_bit=context.run.adapter.kind != "lora")
    model, tokenizer = (
        adapters.load_adapter(bare, policy.path, trainable=False),
        base.load_tokenizer(context.run.model),
    )
    sampling = Sampling(**config.model_dump(exclude={"num_completions"}), seed=context.run.seed)
    began = time.monotonic()
    with bars("sample") as bar:
        task = bar.add_task("completions", total=len(prompts))
        done = sample(model, tokenizer, [p["messages"] for p in prompts], sampling, lambda n: bar.advance(task, n))
    seconds = time.monotonic() - began
    rows = []
    for index, (prompt, answer) in enumerate(zip(prompts, done, strict=True)):
        number = index % config.num_completions
        uid = hashlib.sha256(f"{prompt['id']}\0{number}\0{answer.text}\0{context.run.seed}".encode()).hexdigest()[:20]
        rows.append(
            {"uid": uid, "prompt_id": prompt["id"], "messages": prompt["messages"], "completion": answer.text}
            | {"ids": answer.ids, "num_tokens": answer.num_tokens, "logp": answer.logp, "finish": answer.finish}
        )
    write_jsonl(context.out / "completions.jsonl", rows)
    num_tokens = sum(answer.num_tokens for answer in done)
    num_cut = sum(answer.finish == "length" for answer in done)
    if num_cut:
        click.echo(cut_answers(num_cut, len(done), config.max_new_tokens))
    return {
        "num_completions": len(rows),
        "tokens_per_s": num_tokens / seconds,
        "eos_rate": 1 - num_cut / len(done),
        "num_cut_answers": num_cut,
        "sampling": used(sampling, tokenizer, model),
        "mean_length_tokens": num_tokens / len(done),
        "weights_bytes": base.weights_bytes(model) + engine_bytes(model, config.engine),
    }


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    return loads.sampling(values, lengths, lengths.num_prompts or loads.FALLBACK_ROWS, num_adapters=1)


STAGE = Stage(
    name="sample",
    config=Config,
    makes=Completions,
    run=run,
    needs={"policy": "policy"},
    reads=("prompts",),
    help="Completions to judge, from the current policy.",
    batch="batch_size",
    plan=plan,
)
