"""What a newcomer chooses from, on the demo's task: memory, time, held-out loss and win rate of each. JSON lines.

Every tenth demonstration is kept aside for the loss; the others, or a seeded share of them, train an SFT adapter with
the demo's settings. Then each answers the demo's held-out prompts once, at temperature 0.7, and is compared with the
base under the system prompt by the hidden preference of the demo's simulated annotators. A process a case; times are
the processor's, so that what else runs on the machine does not count.

    python benchmarks/choosing.py OUT_DIR [--cases qlora,dora] [--aligned RUN_DIR_OF_THE_DEMO]
"""

from __future__ import annotations

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import common

SYSTEM = "You are the shop assistant of Larkspur Outdoor."
CASES: dict[str, dict[str, Any]] = {
    "base": {},
    "system prompt": {"system": True},
    "few-shot (3)": {"system": True, "shots": 3},
    "qlora": {"kind": "qlora"},
    "qlora 50 %": {"kind": "qlora", "share": 0.5},
    "qlora 25 %": {"kind": "qlora", "share": 0.25},
    "qlora attention": {"kind": "qlora", "targets": "attention"},
    "lora": {"kind": "lora"},
    "dora": {"kind": "dora"},
    "adalora": {"kind": "adalora"},
    "sft of the demo": {"aligned": "sft"},
    "feedback of the demo": {"aligned": "round-1/dpo"},
}


def texts(name: str) -> list[dict[str, Any]]:
    path = files("trueup.demo").joinpath(f"texts/{name}.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def one(name: str, out: Path, aligned: Path) -> dict[str, Any]:
    import torch

    from trueup.demo import hidden_preference
    from trueup.evaluation import baselines
    from trueup.models import adapters, base
    from trueup.run.data_config import Shot
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load
    from trueup.sampling.sample import sample
    from trueup.sampling.types import Sampling
    from trueup.stages import STAGES

    case, folder = CASES[name], out / name.replace(" ", "-").replace("%", "")
    folder.mkdir(parents=True, exist_ok=True)
    demonstrations = texts("demonstrations")
    test = demonstrations[::10]
    train = [row for i, row in enumerate(demonstrations) if i % 10]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf-8")
    settings = json.loads(json.dumps(demo_settings()))
    kind, targets = case.get("kind", "qlora"), case.get("targets", "all-linear")
    source = {"path": "train.jsonl", "weight": case.get("share", 1.0)}
    settings |= {"name": "case", "adapter": {"kind": kind, "targets": targets}}
    settings["data"] = {"demonstrations": [source], "system": SYSTEM}
    (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    pipeline = Pipeline(
        load(folder / "run.json", {stage.name: stage.config for stage in STAGES}), STAGES, folder / "runs"
    )
    found: dict[str, Any] = {"case": name}
    tokenizer, adapter = base.load_tokenizer(common.BASE), None
    if "kind" in case:
        began = time.process_time()
        pipeline.execute("sft")
        found["cpu_s_training"] = round(time.process_time() - began, 1)
        adapter = pipeline.path("sft")
        record = json.loads((adapter / "record.json").read_text())
        found |= {"train_s": record["metrics"]["train_s"], "steps": record["metrics"]["num_steps"]}
        found |= {"peak_rss_bytes_training": record["peak_rss_bytes"], "rows": record["metrics"]["num_train"]}
        found |= {"trainable_parameters": record["metrics"]["trainable_parameters"]}
        found |= {"weights_bytes": record["metrics"]["weights_bytes"]}
    if "aligned" in case:
        adapter = aligned / case["aligned"]
    model = base.load_base(common.BASE, four_bit=kind != "lora")
    if adapter is not None:
        model = adapters.load_adapter(model, adapter, trainable=False)
    system = adapter is not None or case.get("system", False)
    head = [{"role": "system", "content": SYSTEM}] if system else []
    torch.manual_seed(0)
    found["held_out_loss"] = loss(model, tokenizer, [(head, row) for row in test], case.get("shots", 0), train)
    asked = [[*head, {"role": "user", "content": row["prompt"]}] for row in texts("held_out")]
    if case.get("shots"):
        shots = [Shot(**row) for row in train[: case["shots"]]]
        asked = baselines.prompts("few_shot", asked, pipeline.run.data, shots)
    began = time.process_time()
    answers = sample(
        model, tokenizer, asked, Sampling(max_new_tokens=96, temperature=0.7, top_p=1.0, batch_size=84, seed=1)
    )
    num_tokens = sum(answer.num_tokens for answer in answers)
    found |= {
        "sampled_tokens_per_cpu_s": num_tokens / (time.process_time() - began),
        "mean_length": num_tokens / len(asked),
    }
    found["scores"] = [hidden_preference.score(answer.text) for answer in answers]
    return found


def loss(model: Any, tokenizer: Any, rows: list[Any], shots: int, train: list[dict[str, Any]]) -> float:
    """Mean negative log-probability per token of the held-out answers, in nats."""
    import torch

    from trueup.chat.batch import pad
    from trueup.chat.template import Chat
    from trueup.models import causal

    turns = [
        m
        for row in train[:shots]
        for m in ({"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]})
    ]
    chat = Chat(tokenizer)
    encoded = [
        chat.answer([*head, *turns, {"role": "user", "content": row["prompt"]}], row["response"]) for head, row in rows
    ]
    batch = pad([(one.prompt, one.answer) for one in encoded], tokenizer.pad_token_id)
    with torch.no_grad():
        found = causal.token_logps(model.eval(), batch)
    return float(-found.sum() / (batch["labels"][:, 1:] != -100).sum())


def demo_settings() -> dict[str, Any]:
    from ruamel.yaml import YAML

    read = YAML(typ="safe").load(files("trueup.demo").joinpath("run.yaml").read_text(encoding="utf-8"))
    return {key: read[key] for key in ("model", "sft")}


def main() -> None:
    from trueup.evaluation import intervals

    parser = common.parser(__doc__, tuple(CASES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--aligned", type=Path, default=Path("runs/demo"))
    asked = parser.parse_args()
    if asked.side:
        common.say(one(asked.side, asked.out, asked.aligned))
        return
    options = [str(asked.out), "--aligned", str(asked.aligned)]
    ids = [str(i) for i in range(len(texts("held_out")))]
    compared = common.run(__file__, "system prompt", options)
    for name in asked.cases.split(","):
        found = compared if name == "system prompt" else common.run(__file__, name, options)
        outcomes = intervals.wins(found.pop("scores"), compared["scores"]) if name != "system prompt" else [0.5]
        won = intervals.win_rate(outcomes, ids[: len(outcomes)])
        print(json.dumps(found | {"win_rate_over_system_prompt": won}), flush=True)


if __name__ == "__main__":
    main()
