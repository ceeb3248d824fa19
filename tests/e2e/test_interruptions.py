"""Ctrl+C, a second process, a disk that is full: one line each, and nothing made before is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.errors import StageError
from trueup.run.building import disk_is_full
from trueup.run.lock import only_writer
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES


def copy_of(pipeline: Pipeline, folder: Path, *, built: bool) -> Path:
    """The run file of a copy of the tiny run, with its SFT adapter or without."""
    left_out = ("round-1",) if built else ("runs",)
    shutil.copytree(pipeline.folder.parent.parent, folder, ignore=shutil.ignore_patterns(*left_out))
    return folder / "run.yaml"


def typed(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from trueup.cli.main import main; main()", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def interrupt(process: "subprocess.Popen[str]", when: Path) -> tuple[int, str]:
    """Ctrl+C once `when` is there; the exit code and what was said."""
    began = time.monotonic()
    while not when.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - began < 120
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    return process.returncode, said


def test_ctrl_c_in_training_is_a_plain_line_and_the_same_command_goes_on(pipeline: Pipeline, tmp_path: Path) -> None:
    run_file = copy_of(pipeline, tmp_path / "run", built=False)
    folder = tmp_path / "run" / "runs" / "tiny"
    command = ("sft", str(run_file), "--set", "sft.num_train_epochs=10", "--set", "sft.save_steps=2")
    checkpoints = folder / "sft.partial" / "checkpoints"
    process = typed(*command)
    while not list(checkpoints.glob("*/trueup-manifest.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    code, said = interrupt(process, checkpoints)
    assert (code, "Traceback" in said, "the same command goes on" in said) == (130, False, True), said
    again = typed(*command)
    said = again.communicate(timeout=120)[0]
    assert again.returncode == 0, said
    assert json.loads((folder / "sft" / "record.json").read_text())["metrics"]["resumed_from_step"] > 0


def test_ctrl_c_while_people_label_is_a_plain_line(pipeline: Pipeline, labelstudio: Path, tmp_path: Path) -> None:
    from trueup.feedback import server

    run_file = copy_of(pipeline, tmp_path / "run", built=True)
    url = server.connect(labelstudio).url
    where = ("--set", f"labelstudio.url={url}", "--set", f"labelstudio.data_dir={labelstudio}")
    assert CliRunner().invoke(main, ["sample", str(run_file)]).exit_code == 0
    process = typed("collect", str(run_file), *where, "--set", "labelstudio.wait=true")
    code, said = interrupt(process, tmp_path / "run" / "runs" / "tiny" / "store" / "progress.json")
    assert (code, "Traceback" in said) == (130, False), said
    result = CliRunner().invoke(main, ["status", str(run_file)])
    assert "waiting for labels 0/12" in result.output


def test_a_second_process_on_the_same_run_is_refused_and_a_killed_one_leaves_no_lock(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    run_file = copy_of(pipeline, tmp_path / "run", built=True)
    folder = tmp_path / "run" / "runs" / "tiny"
    hold = (
        f"import pathlib, time; from trueup.run.lock import only_writer\nwith only_writer(pathlib.Path({str(folder)!r})"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold + ", 'dpo'): print('held', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    result = CliRunner().invoke(main, ["sft", str(run_file)])
    assert result.exit_code == 2
    assert f"another trueup is at work on {folder} (dpo, process {holder.pid}, since 20" in result.output
    assert CliRunner().invoke(main, ["status", str(run_file)]).exit_code == 0
    holder.kill()
    holder.wait()
    assert CliRunner().invoke(main, ["sft", str(run_file)]).exit_code == 0
    with only_writer(folder, "sft"), pytest.raises(StageError, match="one at a time"), only_writer(folder, "dpo"):
        pass


def test_a_full_disk_while_a_rebuild_writes_keeps_what_was_complete(pipeline: Pipeline, tmp_path: Path) -> None:
    run_file = copy_of(pipeline, tmp_path / "run", built=True)
    run = load(run_file, {stage.name: stage.config for stage in STAGES})
    copy = Pipeline(run, STAGES, tmp_path / "run" / "runs")
    assert copy.execute("sample") is True
    before = copy.path("sample").joinpath("record.json").read_text()
    aside = copy.path("sample").with_name("sample.partial") / "completions.jsonl.tmp"
    aside.parent.mkdir()
    aside.symlink_to("/dev/full")  # every write fails as on a full disk
    result = CliRunner().invoke(main, ["sample", str(run_file), "--rebuild"])
    assert (result.exit_code, "the disk is full" in result.output) == (2, True), result.output
    assert copy.path("sample").joinpath("record.json").read_text() == before
    aside.unlink(missing_ok=True)
    assert copy.execute("sample", rebuild=True) is True
    assert copy.path("sample").with_name("sample.old-1").joinpath("record.json").read_text() == before


def test_a_copied_folder_that_does_not_fit_is_a_full_disk(tmp_path: Path) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from" / "file").write_text("text")
    (tmp_path / "to" / "file").symlink_to("/dev/full")  # every write fails as on a full disk
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "from", tmp_path / "to", dirs_exist_ok=True)
    assert disk_is_full(caught.value, tmp_path)
    assert not disk_is_full(shutil.Error([("from/file", "to/file", "[Errno 13] Permission denied")]), tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_in_training_is_said_and_training_goes_on_with_space(
    pipeline: Pipeline, small_disk: Path
) -> None:
    on_disk = Pipeline(pipeline.run, STAGES, small_disk / "runs")
    with pytest.raises(StageError, match="the disk is full"):
        on_disk.execute("sft")
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert on_disk.execute("sft") is True


def half_built(run_file: Path) -> Path:
    out = run_file.parent / "runs" / "tiny" / "round-1" / "sample.partial"
    out.mkdir(parents=True)
    for name in ("kept.txt", ".tmpAbC123", "completions.jsonl.tmp"):
        (out / name).write_text("half")
    return out


def test_what_was_begun_from_other_things_is_begun_anew_on_demand_only(pipeline: Pipeline, tmp_path: Path) -> None:
    run_file = copy_of(pipeline, tmp_path / "run", built=True)
    out = half_built(run_file)
    for plan, found in (
        (
            '{"version": 1, "config": {"temperature": 0.5}}',
            "sample.temperature 0.5 -> 1.0 since sample.partial was begun",
        ),
        ('{"config": {"temperature": 0.5}}', "sample.temperature 0.5 -> 1.0 since sample.partial was begun"),
        ('{"config": ', "plan.json is empty or torn"),
    ):
        (out / "plan.json").write_text(plan)
        refused = CliRunner().invoke(main, ["sample", str(run_file)])
        assert (refused.exit_code, found in refused.output) == (2, True), refused.output
        assert f"begin anew: trueup sample {run_file} --rebuild" in refused.output
    assert CliRunner().invoke(main, ["sample", str(run_file), "--rebuild"]).exit_code == 0
    assert not (out.with_name("sample") / "kept.txt").exists()


def test_what_a_killed_writer_left_is_not_in_the_finished_stage(pipeline: Pipeline, tmp_path: Path) -> None:
    run_file = copy_of(pipeline, tmp_path / "run", built=True)
    out = half_built(run_file)
    assert CliRunner().invoke(main, ["sample", str(run_file)]).exit_code == 0
    names = {path.name for path in out.with_name("sample").iterdir()}
    assert names == {"kept.txt", "plan.json", "record.json", "completions.jsonl"}
