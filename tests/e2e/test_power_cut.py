"""The power is cut: what was not waited for is lost, and nothing that is left needs a hand."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trueup.run.artifacts import Artifact, file_sha256
from trueup.run.files import append_jsonl, read_appended, read_json, write_json
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES
from trueup.training.checkpoints import is_whole


class Disk:
    """Keeps, before each call that orders what reaches a disk, what a machine that stops there may come back with.

    The worst of it: every name is there, and a file whose contents were not waited for is empty, as ext4 and XFS leave
    it.
    """

    def __init__(self, folder: Path, states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.states, self.number = folder, states, 0
        self.waited_for: dict[int, tuple[int, int]] = {}
        for name in ("fsync", "replace", "rename"):
            monkeypatch.setattr(os, name, self.watched(getattr(os, name), name == "fsync"))

    def watched(self, call: Callable[..., Any], waits: bool) -> Callable[..., Any]:
        def watching(*arguments: Any, **options: Any) -> Any:
            self.keep()
            found = call(*arguments, **options)
            if waits:
                state = os.fstat(arguments[0])
                self.waited_for[state.st_ino] = (state.st_size, state.st_mtime_ns)
            return found

        return watching

    def keep(self) -> None:
        self.number += 1
        state = self.states / f"{self.number:03}"
        shutil.copytree(self.folder, state)
        for path in self.folder.rglob("*"):
            if path.is_file():
                now = path.stat()
                if self.waited_for.get(now.st_ino) != (now.st_size, now.st_mtime_ns):
                    (state / path.relative_to(self.folder)).write_bytes(b"")


def test_no_moment_of_a_stage_leaves_a_record_or_a_seal_that_lies(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pipeline.folder.parent.parent, tmp_path / "run", ignore=shutil.ignore_patterns("runs"))
    run_file = tmp_path / "run" / "run.yaml"
    run = load(run_file, {stage.name: stage.config for stage in STAGES}, ("sft.num_train_epochs=2",))
    here = Pipeline(run, STAGES, tmp_path / "run" / "runs")
    here.folder.mkdir(parents=True)
    with monkeypatch.context() as watching:
        disk = Disk(here.folder, tmp_path / "states", watching)
        assert here.execute("sft") is True
        disk.keep()
    states = sorted(disk.states.iterdir())
    assert len(states) > 20
    sealed = [seal.parent for state in states for seal in state.rglob("trueup-manifest.json")]
    assert sealed
    assert all(map(is_whole, sealed))
    recorded = [record.parent for state in states for record in state.rglob("record.json")]
    assert {folder.name for folder in recorded} == {"sft.partial", "sft"}
    assert [Artifact.record(made) and sft(made).altered() for made in map(Artifact, recorded)] == [[]] * len(recorded)
    plans = [plan for state in states for plan in state.rglob("plan.json")]
    assert all(read_json(plan) is not None for plan in plans)
    whole = {name: file_sha256(here.path("sft") / name) for name in STAGES[0].makes.FILES}
    last = max(i for i, state in enumerate(states) if (state / "sft.partial" / "record.json").exists())
    shutil.rmtree(here.folder)
    shutil.copytree(states[last], here.folder)  # all was made, and the last rename is lost
    before = (here.folder / "sft.partial" / "record.json").read_text()
    assert here.execute("sft") is True
    assert (here.path("sft") / "record.json").read_text() == before  # nothing trained again
    assert {name: file_sha256(here.path("sft") / name) for name in whole} == whole


def sft(made: Artifact) -> Artifact:
    return STAGES[0].makes(made.path)


def test_a_row_is_on_disk_when_it_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    file = tmp_path / "log" / "rows.jsonl"
    with monkeypatch.context() as watching:
        disk = Disk(tmp_path / "log", tmp_path / "states", watching)
        append_jsonl(file, [{"step": 1}])
        disk.keep()
        append_jsonl(file, [{"step": 2}, {"step": 3}])
        disk.keep()
        write_json(file.with_name("state.json"), {"step": 3})
        disk.keep()
    last = sorted(disk.states.iterdir())[-1]
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
