"""Whatever became of a record or a plan: the run has a status, and its stages go on or end in one of our errors.

`TRUEUP_FUZZ=5000 python -m pytest tests/fuzz/test_record_fuzz.py` tries that many files, new ones each time.
"""

import contextlib
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import open_run

from trueup.errors import TrueupError

FIXTURE = Path(__file__).parents[1] / "fixtures" / "earlier_run.tar.gz"
EXAMPLES = int(os.environ.get("TRUEUP_FUZZ", "60"))
BUILT = ("sft", "collect", "dpo")
# fmt: off
ODD: list[Any] = [
    None, True, 0, -1, 10**30, float("nan"), "", "x", "../..", "\ud83d", [], [1], [None], {}, {"a": 1}, {"": None},
    {"sha256": 3},
]
# fmt: on
SINCE_1 = {
    "version": 1,
    "data": {
        "demonstrations": {
            "sha256": "x",
            "sources": [{"path": "d", "weight": 1.0, "columns": {}, "files": {}, "lines": 3}],
        }
    },
    "read": {"adapter.start": {"path": "x", "sha256": "y"}},
    "base": {"name": "model", "files": {"config.json": "z"}},
    "given": {"config": ["learning_rate"]},
    "files": {"adapter_model.safetensors": "w"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("records")
    with tarfile.open(FIXTURE) as packed:
        packed.extractall(made, filter="data")
    return made


def changed(value: Any, rng: random.Random) -> Any:
    """The value with one part of it replaced, or left out."""
    if rng.random() < 0.15 or not value or not isinstance(value, dict | list):
        return rng.choice(ODD)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [changed(one, rng) if i == at else one for i, one in enumerate(value)]
    key = rng.choice(list(value))
    if rng.random() < 0.2:
        return {name: one for name, one in value.items() if name != key}
    return value | {key: changed(value[key], rng)}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TRUEUP_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rng=st.randoms(use_true_random=False), later=st.booleans(), count=st.integers(1, 3))
def test_a_record_or_a_plan_of_any_values(folder: Path, rng: random.Random, later: bool, count: int) -> None:
    file = rng.choice(sorted(folder.glob("runs/**/record.json")) + sorted(folder.glob("runs/**/plan.json")))
    before = file.read_bytes()
    found = json.loads(before) | (SINCE_1 if later else {})
    for _ in range(count):
        found = changed(found, rng)
    file.write_text(json.dumps(found))
    try:
        run = open_run(folder)
        run.states()  # never an error: it says what is broken
        doings: list[Callable[[], object]] = [run.verdict_lines]
        doings += [lambda stage=stage: run.execute(stage) for stage in BUILT]  # type: ignore[misc]
        doings += [lambda stage=stage: run.says(stage) for stage in BUILT]  # type: ignore[misc]
        for doing in doings:
            with contextlib.suppress(TrueupError):
                doing()
    finally:
        file.write_bytes(before)
