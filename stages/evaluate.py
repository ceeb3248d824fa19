"""evaluate: (Adapters, held-out prompts) -> Report. SFT against the aligned adapter, on one base."""

from typing import Any

from trueup.artifacts import Adapter, Report, write_json, write_jsonl
from trueup.errors import DataError
from trueup.stage import Context, Metrics, Section, Stage


class Config(Section):
    """How the held-out prompts are answered."""

    num_completions: int = 2
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 32


def run(config: Config, context: Context, policy: Adapter, aligned: Adapter) -> Metrics:
    """Answer every held-out prompt with both adapters; write the answers, KL, lengths and EOS rates."""
    import functools
    import time

    import torch
    from rich.progress import Progress

    from trueup.data import read_prompts
    from trueup.models import adapters, base, logps
    from trueup.rollout.generate import Sampling, sample

    data = context.run.data
    if data.held_out is None:
        raise DataError("data.held_out", found="not set", expected="a CSV or JSONL file", next_step="set it")
    prompts = [r for r in read_prompts(data.held_out, data.columns, data.system) for _ in range(config.num_completions)]
    bare = base.load_base(context.run.model.base, four_bit=context.run.adapter.kind != "lora")
    tokenizer = base.load_tokenizer(context.run.model.base)
    model = adapters.load_adapter(bare, aligned.path, trainable=False)
    model.load_adapter(str(policy.path), "sft")
    adapters.trainable_to_fp32(model)
    sampling = Sampling(**config.model_dump(exclude={"num_completions"}), seed=context.run.seed + 1)
    answers, report = {}, {}
    with Progress() as bar:
        for label, name in (("sft", "sft"), ("aligned", "default")):
            task, began = bar.add_task(f"answers of {label}", total=len(prompts)), time.monotonic()
            with adapters.using(model, name):
                done = sample(
                    model, tokenizer, [p["messages"] for p in prompts], sampling, functools.partial(bar.advance, task)
                )
            answers[label] = done
            num_tokens = sum(answer.num_tokens for answer in done)
            report[label] = {
                "mean_length_tokens": num_tokens / len(done),
                "eos_rate": sum(answer.finish == "eos" for answer in done) / len(done),
                "tokens_per_s": num_tokens / (time.monotonic() - began),
            }
    total, count = 0.0, 0
    for start in range(0, len(prompts), config.batch_size):
        rows = [
            logps.encode(tokenizer, p["messages"], a.text)
            for p, a in zip(prompts[start : start + config.batch_size], answers["aligned"][start:], strict=False)
        ]
        batch = logps.pad(rows, tokenizer.pad_token_id)
        with torch.no_grad():
            current = logps.token_logps(model, batch)
            with adapters.using(model, "sft"):
                total += (current - logps.token_logps(model, batch)).sum().item()
        count += sum(len(completion) for _, completion in rows)
    kl = total / count
    rows_out: list[dict[str, Any]] = [
        {"prompt_id": p["id"], "messages": p["messages"], "sft": s.text, "aligned": a.text}
        for p, s, a in zip(prompts, answers["sft"], answers["aligned"], strict=True)
    ]
    write_jsonl(context.out / "answers.jsonl", rows_out)
    metrics = report | {
        "kl_nats_per_token": kl,
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model),
    }
    write_json(context.out / "report.json", metrics)
    return metrics


STAGE = Stage(
    name="evaluate",
    config=Config,
    makes=Report,
    run=run,
    needs={"policy": "sft", "aligned": "aligned"},
    reads=("held_out",),
)
