"""Real thumbs go import, publish, pull, KTO: through the benchmark that measures it, on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_model

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real judgements")
def test_real_thumbs_come_back_from_label_studio_as_they_were_and_train(tmp_path: Path, port: int) -> None:
    make_model(tmp_path / "model")
    words = ["thumbs", str(tmp_path / "out"), "--rows", "24", "--base", str(tmp_path / "model"), "--max-length", "512"]
    command = [sys.executable, str(ROOT / "benchmarks" / "real_labels.py"), *words, "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["pulled_equals_the_file"] is True
    assert (found["published"], found["published_again"]) == (found["answers"], 0)
    assert found["pulled"] == found["thumbs_in_the_file"] >= found["answers"]
    assert sum(found["became"]["thumb"].values()) == found["pulled"]  # every thumb is accounted for
    assert found["num_steps"] > 0
