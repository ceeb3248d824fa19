"""CSV of every program, and files that are none: read right, or refused in one message with the way on."""

import json
import time
from pathlib import Path

import pandas
import pytest

from trueup.data import read_demonstrations
from trueup.data.faults import Faults
from trueup.data.files import DataFile
from trueup.data.sources import Reader
from trueup.errors import DataError
from trueup.run.data_config import DataConfig, Source

ROWS = [{"prompt": "Open, on Sundays?", "response": 'Yes: "till four".'}, {"prompt": "Repairs?", "response": "é"}]
HEADER = '"Open, on Sundays?"{d}"Yes: ""till four""."{end}Repairs?{d}é{end}'


def records(path: Path, content: bytes | str) -> tuple[list[dict[str, str]], Faults]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    faults = Faults()
    return [record for _, record in DataFile(path).records(faults)], faults


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("first", ["", "sep={d}{end}", '"sep={d}"{end}'])
def test_line_ends_delimiters_and_the_line_for_excel(
    tmp_path: Path, end: str, delimiter: str, mark: str, first: str
) -> None:
    text = mark + (first + "prompt{d}response{end}" + HEADER).format(d=delimiter, end=end)
    assert records(tmp_path / "d.csv", text)[0] == ROWS
    assert records(tmp_path / "d.csv", text.removesuffix(end))[0] == ROWS


def test_old_mac_line_ends_in_other_files_and_lines_are_counted(tmp_path: Path) -> None:
    found, faults = records(tmp_path / "d.jsonl", "\r".join(json.dumps(row) for row in ROWS) + "\r{\r")
    assert (found, faults.lines()[0][:17]) == (ROWS, "line 3: not JSON ")
    _, faults = records(tmp_path / "d.csv", "sep=;\nprompt;response\na;b\nc\n")
    assert faults.lines() == ["line 4: 1 fields, expected 2 as in the header"]


def test_empty_columns_and_blank_rows_are_skipped_and_a_column_without_a_name_is_named(tmp_path: Path) -> None:
    found, faults = records(tmp_path / "d.csv", "prompt,response,,\na,b,,\n,,,\n , ,,\nc,d,,,,\n")
    assert found == [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]
    assert (faults.lines(), faults.num_blank) == ([], 2)
    pandas.DataFrame(ROWS).to_csv(tmp_path / "i.csv")  # with its index
    reader = Reader(Source(path=tmp_path / "i.csv"))
    assert len(list(reader)) == 2
    assert reader.unused == {"column 1": 2}


def test_a_header_with_an_open_quote_and_a_quote_inside_a_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d.csv:1: the header is not CSV.*is never closed"):
        records(tmp_path / "d.csv", 'prompt,"response\na,b\nc,d\n')
    _, faults = records(tmp_path / "d.csv", 'prompt,response\na,"She said \\"yes\\", till four."\n')
    assert faults.lines() == [
        "line 2: not CSV (',' expected after '\"'); a quote inside a text is written \"\", not \\\""
    ]
    assert records(tmp_path / "d.csv", '"prompt\nx",response\na,b\n')[0] == [{"prompt\nx": "a", "response": "b"}]


def test_windows_1252_is_said_once_with_the_way_out_of_excel(tmp_path: Path) -> None:
    text = "prompt;response\r\n" + "geöffnet?;Ja, bis vier.\r\n" * 500
    (tmp_path / "d.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError) as caught:
        read_demonstrations(DataConfig.model_validate({"demonstrations": tmp_path / "d.csv"}))
    said = str(caught.value)
    assert len(said.splitlines()) == 6
    assert "line 2: byte 19 is not UTF-8; as Windows-1252 it reads 'geöffnet?;Ja," in said
    assert "and 497 more" in said
    assert "save it again as `CSV UTF-8`" in said
    assert "iconv -f WINDOWS-1252 -t UTF-8 d.csv > utf8.csv" in said


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_zero_bytes(tmp_path: Path, encoding: str) -> None:
    name = encoding.replace("-", "").upper().replace("UTF", "UTF-")
    with pytest.raises(DataError, match=f"encoded as {name}(?s:.*)CSV UTF-8(?s:.*)iconv -f {name} -t UTF-8"):
        records(tmp_path / "d.csv", "prompt\tresponse\na\tb\n".encode(encoding))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.xlsx", b"PK\x03\x04", "a spreadsheet, .*(?s:.*)`CSV UTF-8`"),
        ("d.csv", b"PK\x03\x04", "a spreadsheet or an archive"),
        ("d.XLS", b"\xd0\xcf\x11\xe0", "a spreadsheet"),
        ("d.csv", b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
        ("d.ods", b"PK\x03\x04", "a spreadsheet"),
        ("d.docx", b"PK\x03\x04", "a document"),
        ("d.pdf", b"%PDF-1.7", "a document"),
        ("d.zip", b"PK\x03\x04", "an archive(?s:.*)unpack it"),
        ("d.pkl", b"\x80\x04", "can run code"),
        ("d.csv", b"prompt\n\x00\x01", "not a text file"),
    ],
)
def test_files_without_rows_are_refused_by_what_they_are(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        records(tmp_path / name, content)


HALVES = {
    "d.jsonl": b'{"prompt": "q", "response": "a \\ud83d"}\n{"prompt": "q", "response": "b \\ud83d\\ude00"}\n',
    "d.json": b'[{"prompt": "q", "response": "a \\ud83d"}, {"prompt": "q", "response": "b \\ud83d\\ude00"}]',
}


@pytest.mark.parametrize("name", HALVES)
def test_half_an_emoji_is_a_fault_and_a_whole_one_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HALVES[name])
    reader = Reader(Source(path=tmp_path / name))
    assert [example.completion for _, example in reader] == ["b \U0001f600"]
    assert reader.faults.lines() == ["line 1: response holds \\ud83d, half of an emoji that was cut"]


def test_half_an_emoji_in_a_list_written_as_a_text(tmp_path: Path) -> None:
    text = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a \ud83d"}])
    pandas.DataFrame({"messages": [text]}).to_csv(tmp_path / "d.csv", index=False)
    reader = Reader(Source(path=tmp_path / "d.csv"))
    assert (list(reader), list(reader.faults.counts)) == ([], ["half a character"])


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_in_each_layout(tmp_path: Path, name: str, indent: int | None) -> None:
    for text in (
        json.dumps(ROWS, indent=indent),
        "\n".join(json.dumps(row, indent=indent) for row in ROWS),
        json.dumps({"version": "1.0", "data": ROWS}, indent=indent),
    ):
        found, faults = records(tmp_path / name, text)
        assert (found, faults.lines()) == (ROWS, [])


def test_json_of_columns_or_of_several_lists_is_refused_with_a_way(tmp_path: Path) -> None:
    pandas.DataFrame(ROWS).to_json(tmp_path / "d.json")
    with pytest.raises(DataError, match="orient='records', lines=True"):
        list(DataFile(tmp_path / "d.json").records(Faults()))
    with pytest.raises(DataError, match="one object with train, test"):
        records(tmp_path / "d.json", json.dumps({"train": ROWS, "test": ROWS}))


BOMBS = {
    "list.json": b"[" * 200_000,
    "list.jsonl": b"[" * 200_000,
    "object.jsonl": b'{"a":' * 200_000,
    "object.json": b'{\n "a":' + b'{"a":' * 200_000,
    "digits.jsonl": b'{"prompt": ' + b"9" * 200_000 + b"}",
    "digits.json": b'[{"prompt": ' + b"9" * 200_000 + b"}]",
    "literal.jsonl": json.dumps({"prompt": "[{'role': " + "[" * 200_000}).encode(),
    "minus.jsonl": json.dumps({"prompt": "[{'role': " + "-" * 200_000 + "1}]"}).encode(),
    "tools.jsonl": b'{"messages": [{"role": "user", "content": "q"}], "tools": ' + b"[" * 900 + b"]" * 900 + b"}",
    "quote.csv": b'prompt,response\na,"' + b"[" * 200_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_grows_when_it_is_read_is_refused_at_once(tmp_path: Path, name: str) -> None:
    import resource

    (tmp_path / name).write_bytes(BOMBS[name])
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    reader = Reader(Source(path=tmp_path / name))
    assert list(reader) == []
    assert sum(reader.faults.counts.values()) == 1
    assert time.monotonic() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trueup.data import json_rows, lines

    monkeypatch.setattr(lines, "MAX_BYTES", 2**17)
    monkeypatch.setattr(json_rows, "MAX_BYTES", 2**17)
    for name in ("d.jsonl", "d.csv", "d.txt"):
        with pytest.raises(DataError, match="line 2 is longer than"):
            records(tmp_path / name, b'{"prompt": "a"}\n' + b"x" * 2**18)
    _, faults = records(tmp_path / "d.json", b'[{"prompt": "' + b"x" * 2**19)
    assert "one value of more than" in faults.lines()[0]


def test_control_characters_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from trueup.cli.main import main

    evil = "a\x1b[31m\x1b]0;title\x07b"
    (tmp_path / "d.jsonl").write_text(json.dumps({"prompt": "q", "response": "a", evil: 1}) + "\n")
    (tmp_path / "e.jsonl").write_text(json.dumps({evil: evil}) + "\n")
    (tmp_path / "f.jsonl").write_text(json.dumps({"messages": [{"role": evil, "content": evil}]}) + "\n")
    for name in ("d.jsonl", "e.jsonl", "f.jsonl"):
        said = CliRunner().invoke(main, ["data", "check", str(tmp_path / name), "--page", str(tmp_path / "p.html")])
        assert "\\x1b" in said.output
        assert not {"\x1b", "\x07"} & set(said.output)
