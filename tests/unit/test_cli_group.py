"""How commands end: one message and its exit code, the traceback in a log without secrets or, asked for, shown."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from trueup.cli import fault_log
from trueup.cli.group import Group, debug_option, remember_folder
from trueup.errors import ModelError

PASSWORD = "correct-horse-battery"


def wrapped() -> None:
    try:
        raise ValueError("of a library")
    except ValueError as error:
        raise ModelError("model.base", found="broken", next_step="trueup sft RUN.yaml") from error


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/file")


def no_permission() -> None:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES), "runs/x/file")


def odd_key() -> None:
    raise KeyError(f"uid of {PASSWORD}")


def no_memory() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to")


def plain_error() -> None:
    raise ModelError("model.base", found="nothing", next_step="set it")


def interrupted() -> None:
    raise KeyboardInterrupt


WAYS = {f.__name__: f for f in (wrapped, full_disk, no_permission, odd_key, no_memory, plain_error, interrupted)}


@click.group(cls=Group, params=[debug_option()])
def command() -> None:
    """Ends in every way."""


@command.command()
@click.argument("way")
@click.option("--folder", type=click.Path(path_type=Path))
def end(way: str, folder: Path | None) -> None:
    if folder is not None:
        remember_folder(folder)
    WAYS[way]()


@click.group()
def nested() -> None:
    """A group within it."""


@nested.command()
def inner() -> None:
    odd_key()


command.add_command(nested)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOME_PASSWORD", PASSWORD)
    monkeypatch.chdir(tmp_path)


def typed(*words: str) -> Result:
    return CliRunner().invoke(command, list(words))


def test_a_fault_of_ours_is_one_line_and_a_traceback_in_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    result = typed("end", "odd_key", "--folder", str(tmp_path / "run"))
    log = tmp_path / "run" / "trueup.log"
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "a fault of trueup itself: KeyError" in result.output
    assert f"the traceback is in {log}; please report it with the output of `trueup doctor`" in result.output
    written = log.read_text()
    assert "Traceback (most recent call last)" in written
    assert 'raise KeyError(f"uid of {PASSWORD}")' in written
    assert PASSWORD not in written
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_without_a_run_folder_the_log_is_in_the_cache(tmp_path: Path) -> None:
    for words in (("end", "odd_key"), ("end", "odd_key", "--folder", str(tmp_path / "none")), ("nested", "inner")):
        result = typed(*words)
        assert (result.exit_code, f"the traceback is in {tmp_path / 'cache' / 'trueup.log'}" in result.output) == (
            1,
            True,
        )
    assert (tmp_path / "cache" / "trueup.log").read_text().count("Traceback") == 3
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("way", "code", "said", "logged"),
    [
        ("full_disk", 2, "runs/x/file: the disk is full\n  next: free some space", False),
        ("no_permission", 2, "runs/x/file: Permission denied\n  next: get the right to do that", True),
        ("wrapped", 2, "model.base: broken\n  next: trueup sft RUN.yaml\n", True),
        ("no_memory", 2, "out of memory\n  next: trueup plan", True),
        ("plain_error", 2, "model.base: nothing\n  next: set it\n", False),
        ("interrupted", 130, "stopped; what was made is kept", False),
    ],
)
def test_each_way_has_its_message_its_code_and_its_log(
    tmp_path: Path, way: str, code: int, said: str, logged: bool
) -> None:
    result = typed("end", way)
    assert (result.exit_code, said in result.output, "Traceback" in result.output) == (code, True, False)
    assert (tmp_path / "cache" / "trueup.log").exists() == logged
    assert ("the traceback is in" in result.output) == logged


def test_debug_shows_the_traceback_before_or_behind_the_command_with_its_cause() -> None:
    for words in (("--debug", "end", "wrapped"), ("end", "wrapped", "--debug")):
        result = typed(*words)
        assert (result.exit_code, "ValueError: of a library" in result.output) == (2, True)
        assert result.output.count("Traceback") == 2  # the library's and ours
    assert "Traceback" in typed("nested", "inner", "--debug").output


def test_where_no_log_can_be_written_the_traceback_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_log, "_places", lambda folder: iter([Path("/proc/nowhere")]))
    result = typed("end", "odd_key")
    assert (result.exit_code, "Traceback" in result.output) == (1, True)


def test_the_log_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_log, "MAX_BYTES", 3000)
    for _ in range(30):
        fault_log.keep(ValueError("x" * 1000), tmp_path)
    logs = sorted(path.name for path in tmp_path.glob("trueup.log*"))
    assert logs == ["trueup.log", "trueup.log.1", "trueup.log.2"]
    assert all(path.stat().st_size <= 3000 for path in tmp_path.glob("trueup.log*"))


def test_secrets_are_scrubbed_by_value_and_by_shape(tmp_path: Path) -> None:
    (tmp_path / "labelstudio").mkdir()
    (tmp_path / "labelstudio" / "credentials.json").write_text(
        '{"token": "0123456789abcdef", "password": "pass-word-1"}'
    )
    text = (
        f"{PASSWORD} 0123456789abcdef pass-word-1 hf_abcdefghijklmnopqrstuvwx\n"
        "Authorization: Token deadbeef https://me:mine@host/path learning_rate"
    )
    found = fault_log.scrubbed(text)
    for secret in (PASSWORD, "0123456789abcdef", "pass-word-1", "abcdefghijklmnop", "deadbeef", "me:mine"):
        assert secret not in found
    assert "learning_rate" in found


def test_ctrl_c_while_the_command_starts_is_no_traceback() -> None:
    """At every moment from the first import on: the interpreter's own start, before it, is not ours."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a parent may ignore it
        "import os, sys\nfrom trueup.cli.entry import main\nsys.argv = ['trueup', 'schema']\n"
        "class Tell:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'trueup.cli.main': os.write(1, b'ours\\n')\n"
        "sys.meta_path.insert(0, Tell())\nmain()\n"
    )
    for delay in (0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15):
        started = [sys.executable, "-c", code]
        process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ours\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        # 1 is click's "Aborted!", while it reads the command line
        assert (process.returncode in (0, 1, 130), b"Traceback" in said) == (True, False), (delay, said.decode())
