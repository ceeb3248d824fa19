"""The tests marked gpu, on the emulated device: python marked.py '{"capability": [7, 5], "tests": ["tests/gpu"]}'

They are written for a real GPU, which is seldom at hand; here they show that they can run at all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import emulated
import pretend

ROOT = Path(__file__).parents[2]


def main() -> int:
    given = emulated.given()
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    pretend.install(tuple(given["capability"]))
    import pytest

    os.chdir(ROOT)
    code = pytest.main(["-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", *given["tests"]])
    emulated.report(int(code))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
