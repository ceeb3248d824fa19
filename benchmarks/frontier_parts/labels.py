"""The simulated thumbs of a finished demo as a file of judgements, with and without a share of them flipped."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from trueup.run.artifacts import read_jsonl, write_jsonl

SFT, SAMPLED = (
    ("adapter_config.json", "adapter_model.safetensors", "probe.safetensors", "record.json"),
    "round-1/sample",
)


def finished(demo: Path) -> Path:
    """The run in a folder of `trueup demo`."""
    return next(path.parents[2] for path in demo.glob("runs/*/round-1/collect/record.json"))


def lay_out(demo: Path, folder: Path, share: float, draws: int) -> None:
    """The demo's run file and texts in `folder`, with clean.jsonl and flipped.jsonl; nothing where that was done.

    Of `draws` of the noise, flipped.jsonl is the first, and flipped-1.jsonl and so on are the others.
    """
    if (folder / named(draws - 1)).exists():
        return
    shutil.copytree(demo / "demo_texts", folder / "demo_texts", dirs_exist_ok=True)
    shutil.copy(demo / "demo.yaml", folder / "demo.yaml")
    run = finished(demo)
    answers = {row["uid"]: row for row in read_jsonl(run / SAMPLED / "completions.jsonl")}
    thumbs = [
        {
            "kind": "thumb",
            "annotator": f"simulated {row['annotator']}",
            "prompt": answers[row["uid"]]["messages"][-1]["content"],
            "completion": answers[row["uid"]]["completion"],
            "up": row["up"],
        }
        for row in read_jsonl(run / "round-1/collect/annotations.jsonl")
    ]
    write_jsonl(folder / "clean.jsonl", thumbs)
    for draw in range(draws):
        wrong = set(random.Random(draw).sample(range(len(thumbs)), round(share * len(thumbs))))  # noqa: S311 - no secret
        flipped = [thumb | {"up": thumb["up"] != (number in wrong)} for number, thumb in enumerate(thumbs)]
        write_jsonl(folder / named(draw), flipped)


def named(draw: int) -> str:
    """The file of a draw of the noise."""
    return f"flipped-{draw}.jsonl" if draw else "flipped.jsonl"


def begin(demo: Path, folder: Path, name: str) -> None:
    """Run `name` in `folder` with the SFT adapter and the completions of the demo; nothing where they are there."""
    run, here = finished(demo), folder / "runs" / name
    if (here / SAMPLED / "record.json").exists():
        return
    (here / "sft").mkdir(parents=True, exist_ok=True)
    for file in SFT:
        shutil.copy(run / "sft" / file, here / "sft" / file)
    shutil.copytree(run / SAMPLED, here / SAMPLED, dirs_exist_ok=True)
