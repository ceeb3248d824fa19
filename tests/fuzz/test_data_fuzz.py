"""Whatever stands in a data file: rows whose text is UTF-8, or one of our errors, of which the message can be printed.

`TRUEUP_FUZZ=5000 python -m pytest tests/fuzz/test_data_fuzz.py` tries that many inputs of each kind of file, new ones
each time.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueup.data import read_demonstrations, read_preferences, read_prompts
from trueup.data.check import check, findings, summary
from trueup.data.leaks import leaks
from trueup.data.report import ReadReport
from trueup.errors import TrueupError
from trueup.feedback.files import judgements_of
from trueup.feedback.judgement import to_row
from trueup.run.data_config import COLUMNS, DataConfig, Source

EXAMPLES = int(os.environ.get("TRUEUP_FUZZ", "40"))
READERS: tuple[Callable[..., Any], ...] = (
    lambda data, report: read_demonstrations(data, report=report, takes_tools=True),
    lambda data, report: read_prompts(data, report=report),
    lambda data, report: read_preferences(data, report=report),
)
FIELDS = ("demonstrations", "prompts", "preferences")
# fmt: off
ODD = st.sampled_from([
    "", " ", "nan", "None", "\u200b", "\ud83d", "\x1b[31m", "\x00", "\r", "\n", '"', "'", "[", "{", "[{", "a\n\nnan",
    "[{'role': 'user', 'content': 'q'}]", '[{"from": "human", "value": "q"}, {"from": "gpt", "value": "\\ud83d"}]',
    "[{'role': 'user', 'content': " * 3, "array([{'role': 'a'}])", "\n\nHuman: q\n\nAssistant: a", "\n\nHuman:",
    "\n\nHuman: \n\nAssistant: ", "yes", "-1", "+1", "1.0", "0", "2", "thumbs_up", "1e400", "9" * 400, "é",
    "\U0001f600",
    "[[[[[[[[", "```", "user", "assistant", "tool", "system", '{"a": 1}', "{}", "[]", "sep=;", ";", ",", "\t",
])
# fmt: on
NAMES = st.one_of(st.sampled_from([*COLUMNS, "image", "annotator2", "x"]), st.text(max_size=4), ODD)
TURN_KEYS = st.sampled_from(
    ["role", "content", "from", "value", "tool_calls", "name", "tool_call_id", "function_call", "weight"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), st.text(max_size=12), ODD)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("function"), "function": st.fixed_dictionaries({"name": SCALARS, "arguments": SCALARS})},
        optional={"id": SCALARS},
    ),
    max_size=2,
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "x"])
TURNS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": ROLES, "content": SCALARS}, optional={"tool_calls": CALLS}),
        st.fixed_dictionaries({"from": ROLES, "value": st.one_of(SCALARS, st.lists(SCALARS, max_size=2))}),
        st.dictionaries(TURN_KEYS, SCALARS, max_size=3),
    ),
    max_size=4,
)
TREES = st.recursive(
    st.one_of(SCALARS, TURNS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, TURN_KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)
TEXTS = st.one_of(st.text(max_size=12), ODD, TURNS)
SHAPES = """\
messages|conversations|prompt completion|prompt response|instruction output|prompt|prompt chosen rejected
chosen rejected|chosen rejected score_chosen score_rejected|prompt completion label|prompt completion up down
instruction instances|instruction response1 response2 annotator1|text|system messages tools
system_prompt prompt completion|kind annotator prompt completion up|prompt completion rating annotator lead_time
prompt completion annotator_a annotator_b|prompt completion rating_a|messages feedback|messages score user
request response score|id trace_id type input output scores|id timestamp input output scores userId
id run_type inputs outputs feedback|id run_type inputs outputs feedback_stats"""
KNOWN = st.sampled_from(SHAPES.replace("\n", "|").split("|")).flatmap(
    lambda names: st.fixed_dictionaries({name: st.one_of(TEXTS, TREES) for name in names.split()})
)
ROWS = st.lists(st.one_of(KNOWN, st.dictionaries(NAMES, TREES, max_size=5)), max_size=4)
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 8), st.binary(max_size=4)), max_size=4
)  # at a byte: how many go, what comes


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def fuzz(function: Callable[..., None]) -> Callable[..., None]:
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=EXAMPLES, deadline=10_000, suppress_health_check=quiet)(function)


def use(path: Path, content: bytes) -> None:
    """Read the file in every way there is."""
    path.write_bytes(content)
    for field, read in zip(FIELDS, READERS, strict=True):
        data = DataConfig.model_validate({field: path, "held_out": path, "system": "S"})
        report = ReadReport()
        try:
            rows = read(data, report)
        except TrueupError as error:
            str(error).encode()
        else:
            json.dumps(rows, ensure_ascii=False, default=asdict).encode()
            if field == "preferences":
                json.dumps([to_row(one) for one in judgements_of(rows)[0]], ensure_ascii=False).encode()
            "\n".join(report.lines()).encode()
            json.dumps(report.as_metrics(), ensure_ascii=True)
    with contextlib.suppress(TrueupError):
        leaks(data)
    (survey,) = check({"d": [Source(path=path)]})
    assert all("\x1b" not in words for found in findings(survey) for words in (found.kind, *found.where))
    str([findings(survey), summary(survey)]).encode()


def edited(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, added in edits:
        content = content[:at] + added + content[at + removed :]
    return content


def as_json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=True, indent=indent).encode()


@fuzz
@given(rows=ROWS, edits=EDITS, raw=st.booleans())
def test_json_lines(folder: Path, rows: list[Any], edits: Any, raw: bool) -> None:
    lines = b"\n".join(as_json(row) for row in rows)
    use(folder / "d.jsonl", edited(lines, edits if raw else []))


@fuzz
@given(
    value=st.one_of(ROWS, TREES, st.fixed_dictionaries({"data": ROWS})), indent=st.sampled_from([None, 1]), edits=EDITS
)
def test_json(folder: Path, value: Any, indent: int | None, edits: Any) -> None:
    use(folder / "d.json", edited(as_json(value, indent), edits))


@fuzz
@given(
    names=st.one_of(
        st.lists(NAMES, min_size=1, max_size=4),
        st.sampled_from([["prompt", "response"], ["messages"], ["prompt", "completion", "label"], ["prompt", "", ""]]),
    ),
    rows=st.lists(st.lists(st.one_of(ODD, st.text(max_size=8)), max_size=4), max_size=4),
    delimiter=st.sampled_from(",;\t"),
    edits=EDITS,
)
def test_csv(folder: Path, names: list[str], rows: list[list[str]], delimiter: str, edits: Any) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([names, *rows])
    use(folder / "d.csv", edited(out.getvalue().encode("utf-8", "surrogatepass"), edits))


def table_of(rows: list[Any]) -> pa.Table | None:
    try:
        return pa.Table.from_pylist(rows)
    except (pa.ArrowException, UnicodeEncodeError, TypeError, OverflowError, ValueError):
        return None  # types mixed in a column


@fuzz
@given(rows=st.lists(KNOWN, max_size=2), edits=EDITS, broken=st.booleans())
def test_parquet(folder: Path, rows: list[Any], edits: Any, broken: bool) -> None:
    table, out = table_of(rows), io.BytesIO()
    if table is not None:
        try:
            pq.write_table(table, out)
        except pa.ArrowException:  # a struct without fields
            return
        use(folder / "d.parquet", edited(out.getvalue(), edits if broken else []))


@fuzz
@given(rows=st.lists(KNOWN, max_size=2), edits=EDITS, broken=st.booleans())
def test_arrow(folder: Path, rows: list[Any], edits: Any, broken: bool) -> None:
    table, out = table_of(rows), io.BytesIO()
    if table is not None:
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        use(folder / "d.arrow", edited(out.getvalue(), edits if broken else []))


@fuzz
@given(
    content=st.one_of(st.binary(max_size=60), TEXTS.map(lambda text: str(text).encode("utf-8", "replace"))),
    name=st.sampled_from(["d.txt", "d.jsonl", "d.csv", "d.tsv", "d.json", "d.parquet", "d", "d.jsonl.gz", "d.xlsx"]),
    zipped=st.booleans(),
    edits=EDITS,
)
def test_any_bytes(folder: Path, content: bytes, name: str, zipped: bool, edits: Any) -> None:
    use(folder / name, edited(gzip.compress(content), edits) if zipped else content)
