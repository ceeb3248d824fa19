"""The power is cut: what was not waited for is lost, and nothing that is left needs a hand."""

import subprocess
import sys
from pathlib import Path

import pytest
from power_cut import Disk

from trueup.run.files import append_jsonl, read_appended, read_json, write_json


def test_no_moment_of_a_stage_leaves_a_promise_that_is_not_kept_and_it_goes_on_from_any(tmp_path: Path) -> None:
    program = Path(__file__).with_name("power_cut.py")
    stages = ("sft", "sample", "collect")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "run"), "--resumed", "2", *stages],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines, _ = read_appended(tmp_path / "run" / "power_cuts.jsonl")
    assert [line["stage"] for line in lines if line.get("distinct", 0) > 10] == list(stages)
    assert sum("state" in line for line in lines) == 2 * len(stages)


def test_a_row_is_on_disk_when_it_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    file = tmp_path / "log" / "rows.jsonl"
    with monkeypatch.context() as watching:
        disk = Disk(tmp_path / "log", tmp_path / "states", watching.setattr)
        append_jsonl(file, [{"step": 1}])
        disk.keep()
        append_jsonl(file, [{"step": 2}, {"step": 3}])
        disk.keep()
        write_json(file.with_name("state.json"), {"step": 3})
        disk.keep()
    last = sorted(disk.states.iterdir())[-1] / "missing"
    assert read_appended(last / "rows.jsonl") == ([{"step": 1}, {"step": 2}, {"step": 3}], 0)
    assert read_json(last / "state.json") == {"step": 3}


@pytest.mark.parametrize(
    ("torn", "kept", "lost"),
    [
        (b'{"step": 1}\n{"step": 2}\n{"ste', 2, 1),
        (b'{"step": 1}\n{"step": 2}', 2, 0),
        (b'{"step": 1}\n\xff\xfe\n{"step": 2}\n', 2, 1),
        (b'{"step": 1}\n\x00\x00\x00\x00', 1, 1),
        (b"", 0, 0),
        (b'{"step": "a\xe2\x80\xa8b"}\n', 1, 0),  # U+2028 ends no line
    ],
)
def test_an_unfinished_line_is_left_out_counted_and_ended(tmp_path: Path, torn: bytes, kept: int, lost: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(torn)
    rows, num_torn = read_appended(file)
    assert (len(rows), num_torn) == (kept, lost)
    append_jsonl(file, [{"step": 9}])
    assert read_appended(file) == ([*rows, {"step": 9}], lost)
