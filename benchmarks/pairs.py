"""What the DPO and reward benchmarks share: human pairs, and the adapter both sides start from."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import common

BATCH, ACCUMULATION = 4, 4


def folder_of(count: int, max_length: int) -> Path:
    """A folder with pairs.jsonl of `count` pairs (hh helpful-base) that fit, and in policy/ an adapter and probe."""
    import torch

    from trueup.chat.template import Chat
    from trueup.data import read_preferences
    from trueup.models import adapters, base
    from trueup.run.artifacts import write_jsonl
    from trueup.run.data_config import DataConfig, Source
    from trueup.run.run_file import AdapterConfig
    from trueup.training import proof

    folder = Path(mkdtemp())
    tokenizer = base.load_tokenizer(common.BASE)
    source = Source(path=common.DATA / "hh_helpful_base.train.jsonl.gz")
    pairs: list[dict[str, Any]] = []
    for row in read_preferences(DataConfig(preferences=(source,)))[0]:
        texts = [[*row["messages"], {"role": "assistant", "content": row[side]}] for side in ("completion", "rejected")]
        if max(len(tokenizer.apply_chat_template(text, return_dict=False)) for text in texts) <= max_length:
            pair = {"prompt": row["messages"], "chosen": row["completion"], "rejected": row["rejected"]}
            pairs.append(pair | {"prompt_id": row["prompt_id"], "split": "train", "weight": 1.0})
        if len(pairs) == count:
            break
    write_jsonl(folder / "pairs.jsonl", pairs)
    torch.manual_seed(0)
    model = adapters.new_adapter(base.load_base(common.BASE, four_bit=True), AdapterConfig())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    model.save_pretrained(folder / "policy")
    proof.record_probe(model, tokenizer, [Chat(tokenizer).encode(pair, "chosen") for pair in pairs], folder / "policy")
    return folder


def ours(stage: Any, config: Any, folder: Path) -> dict[str, Any]:
    """The stage from loading its inputs to its saved adapter."""
    import time

    from trueup.run.artifacts import Adapter, Feedback
    from trueup.run.run_file import load
    from trueup.run.stage import Context
    from trueup.stages import STAGES

    (folder / "run.yaml").write_text(f"name: b\nmodel: {{base: '{common.BASE}'}}\n")
    run = load(folder / "run.yaml", {s.name: s.config for s in STAGES})
    out = folder / "out"
    out.mkdir()
    common.import_libraries()
    began = time.monotonic()
    found = stage.run(
        config, Context(run=run, run_dir=folder, out=out), policy=Adapter(folder / "policy"), feedback=Feedback(folder)
    )
    seconds = time.monotonic() - began
    return {"seconds": seconds, "weights_bytes": found["weights_bytes"]} | {
        "losses": common.losses(out / "checkpoints")
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    """The pairs as TRL's documentation shows them: prompt, chosen and rejected are messages."""
    from trueup.run.artifacts import read_jsonl

    return [
        {"prompt": row["prompt"]}
        | {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
        for row in read_jsonl(folder / "pairs.jsonl")
    ]


def main(name: str, doc: str | None, sides: dict[str, Any]) -> None:
    """Run both sides, or the one asked for."""
    parser = common.parser(doc)
    parser.add_argument("--pairs", type=int, default=32)
    asked, options = common.training_options(parser)
    if asked.side:
        common.say(sides[asked.side](folder_of(asked.pairs, asked.max_length), asked.max_length))
        return
    options += ["--pairs", str(asked.pairs)]
    them, us = (common.run(sides["script"], side, options) for side in ("peer", "ours"))
    rates = [side | {"rate": asked.pairs / side["seconds"]} for side in (us, them)]
    common.compare(name, "pairs/s", *rates)
