"""Every figure of trueup on this GPU, in one call: docs/gpu.md says how to run it on a bare machine.

Random weights of a Mistral 7B in NF4, made on the device: nothing is fetched. Our own stages, and plain TRL beside them
in the same run. Each part runs in processes of its own, with a time limit: one that fails ends nothing else. Prints a
line of JSON for each part, `ratio` (ours over the peer, more is better) last, and writes it into the folder --out.

    python benchmarks/gpu.py                             all parts, under 8 minutes on a card of 80 GB
    python benchmarks/gpu.py --parts sft,sample          some
    python benchmarks/gpu.py --shape tiny [--emulate 7.5]   a dry run on a CPU; on the emulated device of the tests
    python benchmarks/gpu.py --table                     fill the table of docs/gpu.md from benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
BOTH = ("peer", "ours")


@dataclass(frozen=True)
class Part:
    """`seconds`: the limit of each of its processes. `rate`: the figure whose ratio is told, ours over the peer's."""

    seconds: int
    sides: tuple[str, ...] = ("ours",)
    rate: str = ""


PARTS = {  # what matters most comes first: what is left when the time is over is skipped
    "base": Part(120),  # makes the random base that all others load
    "env": Part(60),
    "sft": Part(110, BOTH, "tokens_per_s"),
    "dpo": Part(110, BOTH, "tokens_per_s"),
    "sample": Part(150),
    "ppo": Part(150),
    "tests": Part(150),
    "t4_sft": Part(110),
    "t4_sample": Part(90),
    "reward": Part(90, BOTH, "tokens_per_s"),
    "export": Part(90),
    "t4_dpo": Part(110),
}
USUAL = [name for name in PARTS if name != "t4_dpo"]


def main() -> None:
    asked = options()
    if asked.table and asked.out:
        sys.exit(f"--out {asked.out}: --table reads every folder in {RESULTS}, and no other: move it there")
    if asked.table:
        from gpu_parts import table

        table.write()
        return
    if asked.side:
        from gpu_parts import child

        child.main(asked)
        return
    names = asked.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"--parts: unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if asked.shape == "7b" and not asked.emulate and not has_gpu():
        sys.exit("no GPU that torch can use: a dry run on a CPU is --shape tiny")
    out = asked.out or RESULTS / f"{datetime.now():%Y-%m-%d-%H%M}-{asked.shape}"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"--out {out}: {error.strerror}")
    failed = 0
    began, about = time.monotonic(), {"date": f"{datetime.now():%Y-%m-%d}", "commit": commit(), "shape": asked.shape}
    about |= {"emulated": asked.emulate} if asked.emulate else {}
    with (out / "results.jsonl").open("a", encoding="utf-8") as kept:
        for name in ["base", *(name for name in names if name != "base")]:
            found = measured(name, asked, out, began)
            errors = [side["error"] for side in found.values() if isinstance(side, dict) and "error" in side]
            failed += any(not error.startswith("skipped") for error in errors)
            line = json.dumps({"part": name} | about | found)
            print(line, flush=True)
            kept.write(line + "\n")
            kept.flush()
    print(f"results: {out}", file=sys.stderr)
    if failed:
        sys.exit(f"parts that failed: {failed}; see `error` in their lines")


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(USUAL), help=f"by default all but t4_dpo of: {', '.join(PARTS)}")
    parser.add_argument("--shape", default="7b", choices=("7b", "tiny"))
    parser.add_argument("--out", type=Path, help="the folder of results; by default one in benchmarks/results")
    parser.add_argument("--work", type=Path, help="the folder of bases and runs; by default one in --out")
    parser.add_argument(
        "--seconds", type=float, default=470, help="for all parts; those that are left then are skipped"
    )
    parser.add_argument("--emulate", metavar="CAPABILITY", help="on the emulated device of tests/gpu_emulated")
    parser.add_argument("--table", action="store_true", help="fill the table of docs/gpu.md, and measure nothing")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(name: str, asked: argparse.Namespace, out: Path, began: float) -> dict[str, Any]:
    """What the processes of a part found, a key for each side, and the ratio; an `error` for a side that failed."""
    part, start = PARTS[name], time.monotonic()
    found: dict[str, Any] = {}
    for side in part.sides:
        left = asked.seconds - (time.monotonic() - began)
        found[side] = {"error": "skipped: no time is left"}
        if left > 1:
            found[side] = in_own_process(name, side, asked, out, min(left, part.seconds))
    for side in found.values():  # known on the first process that ran
        found = {"device": side.pop("device", None)} | found if "device" in side else found
    rates = [found.get(side, {}).get(part.rate) for side in ("ours", "peer")]
    ratio = round(rates[0] / rates[1], 3) if all(rates) else inner_ratio(found)
    return {"wall_s": round(time.monotonic() - start, 1)} | found | {"ratio": ratio}


def inner_ratio(found: dict[str, Any]) -> float | None:
    """Of the part that measures all engines in one process: `auto` over transformers' own `generate`."""
    engines = found.get("ours", {})
    rates = [
        engines.get(name, {}).get("tokens_per_s_32") if isinstance(engines.get(name), dict) else None
        for name in ("auto", "plain")
    ]
    return round(rates[0] / rates[1], 3) if all(rates) else None


def in_own_process(name: str, side: str, asked: argparse.Namespace, out: Path, limit_s: float) -> dict[str, Any]:
    log, result = out / f"{name}-{side}.log", out / f"{name}-{side}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", name, "--side", side, "--shape", asked.shape, "--out", str(out)]
    command += ["--work", str(asked.work or out / "work"), *(["--emulate", asked.emulate] if asked.emulate else [])]
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, start_new_session=True)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with what it started
            process.wait()
            return {"error": f"longer than {limit_s:.0f} s; see {log.name}"}
    if not result.exists():
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"])[-1]
        return {"error": f"exit code {code}: {last[:300]}"}
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def commit() -> str:
    """The commit of this checkout, with a plus where files were changed; unknown without git."""
    try:
        git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("TRUEUP_COMMIT", "unknown")


if __name__ == "__main__":
    main()
