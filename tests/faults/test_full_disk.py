"""A disk that is really full: one message that says so, and the same command once there is space."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import Small, mounted

PAIRS = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(12)]
TYPED = {
    "init": ["init", "new.yaml"],
    "data check": ["data", "check", "pairs.jsonl"],
    "data prepare": ["data", "prepare", "pairs.jsonl", "--out", "prepared"],
    "a stage": ["collect", "run.yaml"],
    "a server": ["labelstudio", "start"],
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Small]:
    with mounted(tmp_path / "disk") as small:
        if small is None:
            pytest.skip("mounting needs root")
        yield small


@pytest.mark.parametrize("name", TYPED)
def test_a_command_on_a_disk_that_is_full_from_the_start(disk: Small, tmp_path: Path, name: str) -> None:
    (disk.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (disk.folder / "run.yaml").write_text("name: f\nmodel: {base: none}\ndata: {preferences: pairs.jsonl}\n")

    def typed() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "trueup.cli.main", *TYPED[name]],
            cwd=disk.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    for limit in ("size", "nr_inodes"):
        disk.allow(**{limit: disk.used(limit)})
        said = typed()
        assert (said.returncode, said.stdout.count("the disk is full"), "Traceback" in said.stdout) == (2, 1, False), (
            limit,
            said.stdout,
        )
        assert "next: " in said.stdout
    disk.allow()
    if name != "a server":  # whose start takes half a minute, and is tested elsewhere
        again = typed()
        assert again.returncode == 0, again.stdout
