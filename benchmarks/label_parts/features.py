"""The frozen features of answers: the last hidden state of an SFT policy at each answer's end, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Answers:
    """Answers to some prompts: `states` is (answers, hidden) in fp32; `votes` has (answer, person, up) of a run."""

    prompts: list[str]
    texts: list[str]
    uids: list[str]
    states: np.ndarray
    held_out: list[bool]  # to prompts of the file of held-out prompts, which no run trains on or labels


def finished(folder: Path) -> Path:
    """The run in a folder of `trueup demo`."""
    return next(path.parents[1] for path in folder.glob("runs/*/round-1/sample") if (path / "record.json").exists())


def rows_of(run: Path, others: list[Path], *, with_theirs: bool) -> list[Row]:
    """Each distinct answer that `run` sampled, `with_theirs` that `others` sampled, and that the SFT policy of each of
    them gave to the held-out prompts: {key, uid, prompt, messages, completion, held_out}."""
    from trueup.run.artifacts import read_jsonl

    found: dict[str, Row] = {}
    for folder in (run, *others):
        sampled = folder / "round-1/sample/completions.jsonl"
        rows = [
            (row, row["completion"], False) for row in (read_jsonl(sampled) if with_theirs or folder == run else ())
        ]
        if (apart := folder / "round-1/evaluate/answers.jsonl").exists():  # or the run ends with its labels
            rows += [(row, row["sft"], True) for row in read_jsonl(apart)]
        for row, text, held_out in rows:
            asked = row["messages"][-1]["content"]
            key = key_of(row["messages"], text)
            made = {"key": key, "prompt": asked, "messages": row["messages"], "completion": text, "held_out": held_out}
            found.setdefault(key, made | {"uid": row.get("uid", key)})
    return list(found.values())


def key_of(messages: list[Row], text: str) -> str:
    """The name of an answer in a cache: by what was asked last, and by what was answered."""
    return hashlib.sha256(f"{messages[-1]['content']}\0{text}".encode()).hexdigest()[:20]


def compute(run: Path, rows: list[Row], cache: Path, limit_s: float) -> bool:
    """Add to `cache` the missing features of `rows` under the SFT adapter of `run`; False when time ran out."""
    import torch

    from trueup.chat.template import Chat
    from trueup.models import adapters, base, causal

    known = _read(cache)
    missing = [row for row in rows if row["key"] not in known]
    if not missing:
        return True
    began = time.monotonic()
    record = json.loads((run / "sft/adapter_config.json").read_text())
    tokenizer = base.load_tokenizer(record["base_model_name_or_path"])
    bare = base.load_base(record["base_model_name_or_path"], four_bit=True)
    model = adapters.load_adapter(bare, run / "sft", trainable=False).eval()
    ids = {row["key"]: Chat(tokenizer).answer(row["messages"], row["completion"]).ids for row in missing}
    missing.sort(key=lambda row: len(ids[row["key"]]))
    while missing and time.monotonic() - began < limit_s:
        width = len(ids[missing[-1]["key"]])
        count = max(1, TOKENS_AT_ONCE // width)
        batch, missing = missing[-count:], missing[:-count]
        tokens = [ids[row["key"]] for row in batch]
        padded = torch.tensor([[*one, *[0] * (width - len(one))] for one in tokens])
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in tokens])
        with torch.no_grad():
            hidden = causal.hidden_states(model, padded, mask)
        last = hidden[torch.arange(len(batch)), mask.sum(1) - 1].float().numpy()
        known |= {row["key"]: state for row, state in zip(batch, last, strict=True)}
        _write(cache, known)
        print(f"{run}: {len(missing)} answers left, {time.monotonic() - began:.0f} s", flush=True)
    return not missing


def load(rows: list[Row], cache: Path) -> Answers:
    """The answers of `rows` with their features."""
    known = _read(cache)
    return Answers(
        prompts=[row["prompt"] for row in rows],
        texts=[row["completion"] for row in rows],
        uids=[row["uid"] for row in rows],
        states=np.stack([known[row["key"]] for row in rows]),
        held_out=[row["held_out"] for row in rows],
    )


def _read(cache: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return dict(load_file(cache)) if cache.exists() else {}


def _write(cache: Path, known: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file(known, cache.with_suffix(".partial"))
    cache.with_suffix(".partial").replace(cache)
