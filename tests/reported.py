"""Runs whose stages are complete by their records alone, with random figures, for tests of the report."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from trueup.run.artifacts import write_json, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

JUDGED, OPTIMIZED = "a judge of its own", "the reward model that was optimized"
VERSIONS = {"trueup": "9.9", "torch": "8.8"}


def opened(folder: Path, text: str = "", *overrides: str) -> Pipeline:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(f"name: r\n{text}")
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES}, overrides)
    return Pipeline(run, STAGES, folder / "runs", overrides)


def built(run: Pipeline, place: str, metrics: dict[str, Any], files: Any = None, **more: Any) -> Path:
    """A complete stage by its record, with a fingerprint that is its place."""
    path = run.folder / place
    path.mkdir(parents=True)
    for name, lines in (files or {}).items():
        write_jsonl(path / name, lines)
    record = {"stage": path.name.partition("@")[0], "fingerprint": place, "metrics": metrics, "inputs": {}, "seed": 3}
    record |= {"wall_s": 61.25, "peak_rss_bytes": 3_210_000_000, "versions": VERSIONS, "overrides": []}
    write_json(path / "record.json", record | more)
    return path


def won(draw: random.Random, **more: Any) -> dict[str, Any]:
    low, estimate, high = sorted(draw.random() for _ in range(3))
    return {"estimate": estimate, "low": low, "high": high, "num_prompts": draw.randrange(10, 99)} | more


def evaluated(run: Pipeline, number: int, adapter: str, draw: random.Random, *labels: str, **more: Any) -> Path:
    """An adapter and its evaluation, of random figures; `labels` are contestants besides SFT."""
    method, _, variant = adapter.partition("@")
    built(run, f"round-{number}/{adapter}", {"num_pairs": 5}, overrides=[f"{method}.beta=0.{number}", "round=9"])
    over = ("sft", *labels)
    trust = won(draw) | {"num_pairs": 30, "on": "pairs", "calibration": [{"sure": 0.6, "right": 0.7, "num": 9}]}
    judges = {
        kind: {"name": name, "win_rates_over": {label: won(draw) for label in over}, "trust": trust, "notes": {}}
        | {"num_without_answer": {"sft": draw.randrange(9)}, "can_tell": True}
        for kind, name in (("optimized", OPTIMIZED), ("disjoint", JUDGED))
    }
    judge = {"kind": "disjoint", "name": JUDGED, "trust": trust, "can_tell": True}
    figures = {
        label: {"mean_length_tokens": 90 * draw.random(), "eos_rate": draw.random(), "tokens_per_s": 1.0}
        for label in (*over, "aligned")
    }
    figures |= {"judges": judges, "judge": judge, "win_rates_over": judges["disjoint"]["win_rates_over"], "goal": {}}
    figures |= {"win_rate": judges["disjoint"]["win_rates_over"]["sft"], "kl_nats_per_token": draw.random()}
    texts = dict.fromkeys((*over, "aligned"), "an answer")
    lines = [
        {"prompt_id": str(i), "messages": [{"role": "user", "content": f"question {i}"}], **texts}
        | {"preferred": {"disjoint": draw.random()}, "reward": dict.fromkeys(texts, 0.5)}
        | {"num_tokens": dict.fromkeys(texts, 3), "finish": dict.fromkeys(texts, "eos")}
        for i in range(20)
    ]
    name = f"round-{number}/evaluate" + (f"@{variant}" if variant else "")
    inputs = {"aligned": f"round-{number}/{adapter}"}
    return built(run, name, figures | more, {"answers.jsonl": lines}, inputs=inputs)
