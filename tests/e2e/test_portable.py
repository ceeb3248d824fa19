"""The end-to-end tests once more without the CPU's own code: by transformers' own forward, as on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = (
    "test_alignment.py",
    *(
        pytest.param(file, marks=pytest.mark.slow)
        for file in ("test_judge_and_export.py", "test_rollout.py", "test_ppo.py")
    ),
)


@pytest.mark.skipif(os.environ.get("TRUEUP_CPU") == "portable", reason="all tests run so already")
@pytest.mark.parametrize("file", FILES)
def test_it_passes_with_the_doors_shut(file: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not doors", "-k", "not (simple_reward and (1 or 2))"]
    command += [
        "-p",
        "no:xdist",
        str(HERE / file),
    ]  # one seed of what learns, which takes the most time, is enough here
    done = subprocess.run(
        command, env=os.environ | {"TRUEUP_CPU": "portable"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
