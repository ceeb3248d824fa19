"""One side of one part, in this process; its result is a file, so that nothing that prints can spoil it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
T4_GIB = 14.7  # of a T4's 16 GB what torch can have
SMALLER = {"7b": "1b", "tiny": "tiny"}  # of the base that export reads from the disk in 16 bits


def main(asked: argparse.Namespace) -> None:
    """Measure `asked.part`, and write what was found, or the error, into `asked.out`."""
    began = time.monotonic()
    result = asked.out / f"{asked.part}-{asked.side}.json"
    try:
        find_sources()
        if asked.emulate and asked.part != "base":
            emulate(asked.emulate)
        found = measured(asked.part, asked.side, asked.shape, asked.work, asked.emulate)
        found = {"device": device()} | found
    except BaseException as error:  # whatever it is, it is the result of this part
        traceback.print_exc()
        at = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)][-4:]
        found = {"error": f"{type(error).__name__}: {str(error)[:500]}", "at": at}
    found["process_s"] = round(time.monotonic() - began, 1)
    result.write_text(json.dumps(found, default=str), encoding="utf-8")
    print(json.dumps(found, indent=2, default=str))


def find_sources() -> None:
    """Make `trueup` and the tests' helpers importable: from this checkout where trueup is not installed."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "gpu_emulated")]
    if find_spec("trueup") is None:
        sys.path.insert(0, assembled())


def assembled() -> str:
    """A folder in which the package has its stages and its feedback, as an installed one does."""
    site = Path(tempfile.mkdtemp(prefix="trueup-"))
    (site / "trueup").mkdir()
    for source in [*(ROOT / "src" / "trueup").iterdir(), ROOT / "stages", ROOT / "feedback"]:
        if source.name != "__pycache__":
            (site / "trueup" / source.name).symlink_to(source)
    return str(site)


def emulate(capability: str) -> None:
    """The emulated device of the tests, which must be there before torch is imported."""
    import pretend

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    major, minor = (int(part) for part in capability.split("."))
    pretend.install((major, minor))


def measured(part: str, side: str, shape: str, work: Path, emulated: str | None) -> dict[str, Any]:
    """What a side of a part finds. `work` holds the bases and the runs."""
    from gpu_parts import random_base

    base, kept = work / f"base-{shape}", work / f"kept-sft-{shape}"
    if part == "base":
        random_base.build(base, shape, four_bit=True)
        random_base.build(work / f"dense-{SMALLER[shape]}", SMALLER[shape], four_bit=False)
        return {"gigabytes": round(sum(f.stat().st_size for f in base.iterdir()) / 1e9, 2)}
    if part == "env":
        from gpu_parts import environment

        return environment.measure(8192 if shape == "7b" else 64)
    if part == "tests":
        return tests(emulated)

    from gpu_parts.workbench import Workbench

    if part == "export":
        return export(Workbench(work / "export", work / f"dense-{SMALLER[shape]}", SMALLER[shape]), work)
    on_t4 = part.startswith("t4_")
    if on_t4:
        imitate_t4()
    from trueup.models.base import compute_dtype

    if emulated:  # which knows no weights that are saved in 4 bits: they are quantized while they are loaded
        base = work / f"dense-{SMALLER[shape]}"
    elif str(compute_dtype()) == "torch.float16":
        base, kept = random_base.in_fp16(base), work / f"kept-sft-{shape}-fp16"
    bench = Workbench(work / f"{part}-{side}", base, shape)
    name = part.removeprefix("t4_")
    if name == "sample":
        from gpu_parts import sampling

        return sampling.measure(bench, kept)
    from gpu_parts import training

    return (training.ours if side == "ours" else training.peer)(name, bench, kept)


def imitate_t4() -> None:
    """A T4's memory, its capability (so fp16), and no flash attention. Its speed cannot be imitated."""
    import torch

    if not torch.cuda.is_available():
        return
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, T4_GIB * 2**30 / total))
    torch.cuda.get_device_capability = lambda device=None: (7, 5)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


def export(bench: Any, work: Path) -> dict[str, Any]:
    """Seconds and peak of exporting an adapter and merged weights of a smaller base, and how far they are from it."""
    from gpu_parts.workbench import forget_peak, now, peak

    pipeline = bench.begun(work / "kept-sft-dense")
    pipeline.execute("dpo")
    forget_peak()
    began = now()
    pipeline.execute("export")
    metrics = pipeline.stages["export"].makes(pipeline.path("export")).record()["metrics"]
    found = {"stage_s": round(now() - began, 1)} | peak()
    return found | {key: value for key, value in metrics.items() if "kl" in key}


def tests(emulated: str | None) -> dict[str, Any]:
    """The last line of the tests marked gpu."""
    path = os.pathsep.join(filter(None, [*sys.path[:3], os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"]
    if emulated:
        given = {"capability": [int(part) for part in emulated.split(".")], "tests": ["tests/gpu"]}
        command = [sys.executable, "tests/gpu_emulated/marked.py", json.dumps(given)]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    counted = [line for line in done.stdout.splitlines() if " in " in line and line[:1].isdigit()]
    return {"exit_code": done.returncode, "said": (counted or ["?"])[-1]}


def device() -> str:
    """The card's name; of an emulated one nothing is known but that it is."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return str(torch.cuda.get_device_name(0))
