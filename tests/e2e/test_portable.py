"""The end-to-end tests once more without the CPU's own code: by transformers' own forward, as on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SLOW = pytest.mark.slow
ONE_SEED = "not (simple_reward and (1 or 2))"  # of what learns, which takes the most time, is enough here
FILES = (
    ("test_alignment.py", "proves_its_reference_first or planted or eval_forward"),
    pytest.param("test_alignment.py", "", marks=SLOW),
    *(
        pytest.param(file, ONE_SEED, marks=SLOW)
        for file in ("test_judge_and_export.py", "test_rollout.py", "test_ppo.py")
    ),
)


@pytest.mark.skipif(os.environ.get("TRUEUP_CPU") == "portable", reason="all tests run so already")
@pytest.mark.parametrize(("file", "tests"), FILES)
def test_it_passes_with_the_doors_shut(file: str, tests: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-m", "not doors", "-k", tests]
    command.append(str(HERE / file))
    done = subprocess.run(
        command, env=os.environ | {"TRUEUP_CPU": "portable"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
