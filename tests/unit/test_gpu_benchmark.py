"""benchmarks/gpu.py: a part that fails ends no other, and the table of docs/gpu.md holds real figures only."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINE: dict[str, Any] = {
    "part": "sft",
    "device": "NVIDIA H100 80GB HBM3",
    "date": "2027-01-02",
    "commit": "abc1234",
    "shape": "7b",
    "ours": {"tokens_per_s": 2.0, "peak_tensors_gb": 5.5},
    "peer": {"tokens_per_s": 1.0},
    "ratio": 2.0,
}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from gpu_parts import table

    return table


def test_no_time_left_is_said_of_each_part_and_the_ratio_is_last(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--shape", "tiny", "--parts", "env,dpo"]
    done = subprocess.run(
        [*command, "--seconds", "2", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, done.stderr  # the part `base` was cut off
    assert [line["part"] for line in lines] == ["base", "env", "dpo"]
    assert lines[0]["ours"]["error"].startswith("longer than 2 s")
    assert {side: line["error"] for side, line in lines[2].items() if side in ("ours", "peer")} == dict.fromkeys(
        ("peer", "ours"), "skipped: no time is left"
    )
    assert all(list(line)[-1] == "ratio" and line["ratio"] is None for line in lines)
    assert (tmp_path / "results.jsonl").read_text() == done.stdout


def test_an_unknown_part_is_named() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--parts", "sfd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("--parts: unknown: sfd; known: base, env, sft")


def test_the_table_is_of_no_folder_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--table", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith(f"--out {tmp_path}: --table reads every folder in ")


def test_the_page_has_what_was_measured_and_nothing_else(table: Any) -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    within = text.partition(table.BEGIN + "\n")[2].partition(table.END)[0]
    assert within == table.rendered(table.lines(table.RESULTS)), "run python benchmarks/gpu.py --table"


def test_figures_of_another_card_a_cpu_or_a_dry_run_are_left_out(table: Any, tmp_path: Path) -> None:
    def rows(*found: dict[str, Any]) -> list[str]:
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
        return [row for row in table.rendered(table.lines(tmp_path)).splitlines() if table.NOT_MEASURED not in row][2:]

    assert rows() == []
    assert rows(LINE | {"device": "cpu"}) == rows(LINE | {"shape": "tiny"}) == rows(LINE | {"emulated": "8.0"}) == []
    assert rows(LINE | {"part": "dpo", "ours": {"error": "no"}, "ratio": None}) == []
    where = "NVIDIA H100 80GB HBM3, 2027-01-02, abc1234"
    aimed = "| SFT of a 7B, against plain TRL | A100 class | at least 1.8x |"
    assert rows(LINE) == [
        f"{aimed} 2x | {where} |",
        f"| SFT of a 7B, 2 x 1,024 tokens, peak of tensors | any | at most 5.9 GB | 5.5 GB | {where} |",
    ]
    later = LINE | {"ratio": 1.25, "commit": "def5678"}
    assert rows(LINE, later)[0] == f"{aimed} 1.25x | {where.replace('abc1234', 'def5678')} |"
    assert rows(LINE | {"device": "Tesla T4"})[0].startswith(
        "| SFT of a 7B, against plain TRL | T4 | at least 1.5x | 2x |"
    )
