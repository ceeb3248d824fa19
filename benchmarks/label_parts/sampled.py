"""Answers of a policy to the demo's held-out prompts, sampled once and kept, with its KL from SFT."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from label_parts import raw_trl
from label_parts.features import Row

SAMPLING = {"max_new_tokens": 96, "temperature": 0.7, "top_p": 1.0, "batch_size": 128}  # the demo's `evaluate`


def answers_of(out: Path, name: str) -> list[Row]:
    """{prompt_id, messages, completion, num_tokens, finish} of each answer that `name` gave, prompt by prompt."""
    from trueup.run.artifacts import read_jsonl

    return list(read_jsonl(file_of(out, name)))


def sample(out: Path, name: str, prompts: list[Row], sft: Path, aligned: Path | None, count: int, seed: int) -> Row:
    """Sample and keep `count` answers of the adapter `aligned` to each prompt, of SFT where it is None.

    Returns {kl, tokens, eos_rate, sample_cpu_s}: the KL from SFT in nats per token, on the first answer to each prompt,
    and the mean length in tokens.
    """
    from trueup.chat.template import Chat
    from trueup.evaluation import compare
    from trueup.models import adapters, base
    from trueup.run.artifacts import write_jsonl
    from trueup.sampling.kept import Kept
    from trueup.sampling.types import Sampling

    began, folder = time.process_time(), file_of(out, name).parent
    folder.mkdir(parents=True, exist_ok=True)
    where = raw_trl.base_of(sft)
    tokenizer = base.load_tokenizer(where)
    model = adapters.load_adapter(base.load_base(where, four_bit=True), aligned or sft, trainable=False).eval()
    asked = [row for row in prompts for _ in range(count)]
    messages = [row["messages"] for row in asked]
    sampling = Sampling(**SAMPLING, seed=seed)
    done = compare.answers(
        model, tokenizer, "default", messages, sampling, lambda done: None, Kept(folder, file_of(out, name).stem)
    )
    kl = 0.0
    if aligned is not None:
        adapters.load_frozen(model, sft, "sft")
        said = [(Chat(tokenizer).prompt(one), answer.ids) for one, answer in zip(messages, done, strict=True)]
        kl = compare.kl_per_token(model, tokenizer, "default", "sft", said[::count], sampling.temperature)
    rows: list[dict[str, Any]] = []
    for row, answer in zip(asked, done, strict=True):
        made = {name: value for name, value in asdict(answer).items() if name in ("ids", "finish")}
        rows.append(row | {"completion": answer.text, "num_tokens": answer.num_tokens} | made)
    write_jsonl(file_of(out, name), rows)
    file_of(out, name).with_suffix(".kept.jsonl").unlink(missing_ok=True)
    return {
        "kl": kl,
        "tokens": sum(one.num_tokens for one in done) / len(done),
        "eos_rate": sum(one.finish == "eos" for one in done) / len(done),
        "sample_cpu_s": round(time.process_time() - began, 1),
    }


def file_of(out: Path, name: str) -> Path:
    """Where the answers of a policy are kept."""
    return out / "answers" / f"{name.replace(' ', '-')}.jsonl"
