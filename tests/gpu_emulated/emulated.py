"""Run a script of this folder in a process that has the emulated device, and hand back what it reports.

A script takes a JSON object as its only argument, and calls `report(value)` once with anything JSON can hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import guard
import pytest

HERE = Path(__file__).parent
MARK = "emulated-device-report: "
Ended = subprocess.CompletedProcess[str]

needs_compiler = pytest.mark.skipif(guard.compiler() is None, reason="the emulated CUDA device needs a C++ compiler")


def run(script: str, **given: Any) -> Any:
    """What `script` (a file name in this folder) reported. Fails the test with its output when it ends otherwise."""
    return reported(start(script, **given))


def start(script: str, *, limit_s: float = 240, **given: Any) -> Ended:
    """The ended process of `script`, whatever its exit code; it sees every GPU there is."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    usual = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [sys.executable, str(HERE / script), json.dumps(given)],
        env=usual | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )


def reported(done: Ended) -> Any:
    """What an ended process reported."""
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert done.returncode == 0 and lines, f"it ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(lines[-1].removeprefix(MARK))


def given() -> dict[str, Any]:
    """In a script: what the test handed over."""
    values: dict[str, Any] = json.loads(sys.argv[1])
    return values


def report(value: Any) -> None:
    """In a script: hand `value` back to the test."""
    print(MARK + json.dumps(value), flush=True)
