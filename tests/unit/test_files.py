"""Files of every kind give the same records; broken ones are named with their lines, never a traceback."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trueup.data.faults import Faults
from trueup.data.files import DataFile, files_of
from trueup.data.sources import Reader
from trueup.errors import DataError
from trueup.run.data_config import Source

ROWS = [{"prompt": "é, a", "response": "b\n\u2028c"}, {"prompt": "d", "response": '"e"'}]
AS_CSV = 'prompt,response\n"é, a","b\n\u2028c"\nd,"""e"""\n'


def records(path: Path, faults: Faults | None = None) -> list[dict[str, Any]]:
    found = Faults() if faults is None else faults
    rows = [record for _, record in DataFile(path).records(found)]
    if faults is None:
        assert found.lines() == []
    return rows


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "table")
    return (folder / "table").read_bytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_kind_gives_the_same_records(tmp_path: Path, kind: str, mark: bytes, zipped: bool) -> None:
    contents = {
        "jsonl": as_jsonl(ROWS),
        "json": json.dumps(ROWS, indent=1).encode(),
        "csv": AS_CSV.encode(),
        "tsv": AS_CSV.replace("prompt,", "prompt\t").replace('",', '"\t').replace("d,", "d\t").encode(),
        "parquet": as_parquet(tmp_path),
    }
    content = contents[kind] if kind == "parquet" else mark + contents[kind]
    path = tmp_path / (f"rows.{kind}.gz" if zipped else f"rows.{kind}")
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert records(path) == ROWS


def test_json_lines_named_json_semicolons_and_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(as_jsonl(ROWS))
    (tmp_path / "b.csv").write_text("prompt;response\na, b;c\n")
    (tmp_path / "c.txt").write_text("one\n\ntwo\n")
    assert records(tmp_path / "a.json") == ROWS
    assert records(tmp_path / "b.csv") == [{"prompt": "a, b", "response": "c"}]
    assert records(tmp_path / "c.txt") == [{"text": "one\n"}, {"text": "two\n"}]


def test_a_folder_is_read_in_order_and_its_faults_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(ROWS))
    (tmp_path / "sub" / "b.csv").write_text("prompt,response\nx,\n")
    (tmp_path / ".hidden.jsonl").write_text("{")
    (tmp_path / "notes.md").write_text("no data")
    reader = Reader(Source(path=tmp_path))
    assert len(list(reader)) == 2
    assert reader.formats == {"a.jsonl": "prompt/response", "sub/b.csv": "prompt/response"}
    assert reader.faults.lines() == ["sub/b.csv, line 2: response has no text"]


def test_a_folder_without_data_says_what_data_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file in this folder\n  expected: .jsonl"):
        files_of(tmp_path)


def test_another_encoding_is_named_with_its_byte(tmp_path: Path) -> None:
    line = as_jsonl(ROWS[1:])
    (tmp_path / "a.jsonl").write_bytes(line + '{"prompt": "café"}\n'.encode("latin-1") + line)
    faults = Faults()
    assert records(tmp_path / "a.jsonl", faults) == ROWS[1:] * 2
    offset = len(line) + len('{"prompt": "caf')
    assert faults.lines() == [f'line 2: byte {offset} is not UTF-8; as Windows-1252 it reads \'rompt": "café"}}\'']


def test_another_encoding_in_a_csv_costs_that_row_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("prompt\none\ncafé\ntwo\n".encode("cp1252"))
    faults = Faults()
    assert records(tmp_path / "a.csv", faults) == [{"prompt": "one"}, {"prompt": "two"}]
    assert faults.lines() == ["line 3: byte 14 is not UTF-8; as Windows-1252 it reads 'café'"]


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32"])
def test_a_wide_encoding_is_named_with_the_command_that_converts_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("prompt\nx\n".encode(encoding))
    with pytest.raises(
        DataError, match=f"encoded as {encoding}(?s:.*)CSV UTF-8(?s:.*)iconv -f {encoding} -t UTF-8 a.csv"
    ):
        records(tmp_path / "a.csv")


def test_a_column_named_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response,prompt\na,b,c\n")
    with pytest.raises(DataError, match="columns named twice: prompt"):
        records(tmp_path / "a.csv")


def test_rows_of_a_csv_with_other_fields_and_an_open_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,response\n"a\nb",c\nd\ne,f,g\nh,i\n"j,k\n')
    faults = Faults()
    assert records(tmp_path / "a.csv", faults) == [
        {"prompt": "a\nb", "response": "c"},
        {"prompt": "h", "response": "i"},
    ]
    assert [words.split(" (")[0] for words in faults.lines()] == [
        "line 4: 1 fields, expected 2 as in the header",
        "line 5: 3 fields, expected 2 as in the header",
        "line 7: not CSV",
    ]


def test_lines_that_are_no_objects_and_values_orjson_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"a": 1}\n[1]\n\n"x"\n{"a": 1e400, "b": 123456789012345678901234567890}\n{"a": 1\n'
    )
    faults = Faults()
    assert len(records(tmp_path / "a.jsonl", faults)) == 2
    assert faults.lines()[:2] == ["line 2: list, expected an object", "line 4: str, expected an object"]
    assert faults.lines()[2].startswith("line 6: not JSON (Expecting ',' delimiter")


def test_a_broken_json_array_names_the_row_where_reading_stopped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}, 2, {"a": 2}, {"a": ]')
    faults = Faults()
    assert records(tmp_path / "a.json", faults) == [{"a": 1}, {"a": 2}]
    assert faults.lines()[0] == "row 2: int, expected an object"
    assert faults.lines()[1].startswith("row 4: not JSON")


def test_lost_files_are_errors_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "half.jsonl.gz").write_bytes(gzip.compress(as_jsonl(ROWS) * 100)[:-12])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    for name, words in (
        ("half.jsonl.gz", "broken gzip"),
        ("bad.parquet", "broken Parquet"),
        ("picture.png", "unknown"),
    ):
        with pytest.raises(DataError, match=words):
            records(tmp_path / name)


def test_reading_keeps_memory_flat(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as out:
        for _ in range(200):
            out.write(as_jsonl([{"prompt": "x" * 500, "response": "y" * 500}] * 200))
    tracemalloc.start()
    assert sum(1 for _ in DataFile(path).records(Faults())) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 40_000_000
    assert peak < 1_000_000


def test_the_hub_is_streamed_by_name_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, split: str, streaming: bool) -> list[dict[str, str]]:
        if name == "owner/none":
            raise ConnectionError("no such data set")
        return [{"prompt": f"{name} {split} {streaming}"}]

    monkeypatch.setattr("trueup.data.hub.is_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert records(Path("hub:owner/name:test")) == [{"prompt": "owner/name test True"}]
    assert records(Path("hub:owner/name")) == [{"prompt": "owner/name train True"}]
    with pytest.raises(DataError, match="cannot be fetched: no such data set"):
        records(Path("hub:owner/none"))
    monkeypatch.setattr("trueup.data.hub.is_reachable", lambda: False)
    with pytest.raises(DataError, match=r"the hub at \S+ does not answer\n  next: check the connection"):
        records(Path("hub:owner/name"))  # not `load`, which would try for a minute
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="next: unset HF_HUB_OFFLINE"):
        records(Path("hub:owner/name"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        records(tmp_path / "d.jsonl")
