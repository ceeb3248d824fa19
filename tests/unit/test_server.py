"""What our own server does that needs no server: stopping waits, and the token goes to nobody else."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trueup.errors import ServerError
from trueup.feedback import environment, people, reach, server
from trueup.feedback.connection import connect
from trueup.feedback.project import Project
from trueup.run.run_file import LabelStudioConfig

SLOW = "import signal,sys,time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))\n"
DEAF = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


LISTENS = """
import socket, threading, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[2])))
held = bytearray(b"x") * 200_000_000  # which takes Linux a moment to take back
for _ in range(20):
    threading.Thread(target=listening.accept, daemon=True).start()
"""


def pretended(folder: Path, code: str, name: str = "label-studio") -> subprocess.Popen[bytes]:
    """A process that works in `folder` and carries the server's name."""
    command = [sys.executable, "-c", f"{code}print('up', flush=True)\ntime.sleep(60)", name]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, cwd=folder)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("code", [SLOW, DEAF])
def test_stop_returns_when_the_process_is_gone(tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_LIMIT_S", 2)
    process = pretended(tmp_path, code)
    began = time.monotonic()
    assert server.stop(tmp_path) is True
    assert time.monotonic() - began > 0.9
    process.wait(timeout=0.5)  # its command line is gone a moment before Linux lets us collect it
    assert server.stop(tmp_path) is False


def test_the_port_is_free_when_stop_returns(tmp_path: Path, port: int) -> None:
    """A process's threads end one by one, and the last one closes its port."""
    for _ in range(3):
        process = pretended(tmp_path, f"import sys\nsys.argv[2:] = ['{port}']\n{LISTENS}")
        with socket.create_connection(("127.0.0.1", port)):
            assert server.stop(tmp_path) is True
            reach.refuse_taken(port, reach.LOOPBACK)
        process.wait(timeout=5)


def test_a_server_is_found_by_its_folder_wherever_that_has_moved(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    process = pretended(tmp_path / "one", "import time\n")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert [server.is_running(tmp_path / name) for name in ("copy", "moved", "one")] == [False, True, False]
    assert (server.stop(tmp_path / "copy"), process.poll()) == (False, None)
    assert server.stop(tmp_path / "moved") is True
    process.wait(timeout=5)


def test_another_program_in_the_folder_is_no_running_server(tmp_path: Path) -> None:
    process = pretended(tmp_path, "import time\n", name="another-program")
    assert server.is_running(tmp_path) is False
    process.kill()
    process.wait()


def test_our_token_goes_to_our_server_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"url": "http://127.0.0.1:8090", "token": "ours"}))
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    assert connect(tmp_path).token == "ours"
    assert connect(tmp_path, "http://127.0.0.1:8090/").token == "ours"
    with pytest.raises(ServerError, match="LABEL_STUDIO_API_KEY"):
        connect(tmp_path, "https://labels.example.org")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "theirs")
    assert connect(tmp_path, "https://labels.example.org").token == "theirs"
    assert connect(tmp_path).token == "ours"


def test_a_server_without_the_present_guard_gets_no_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"url": "http://127.0.0.1:8123", "token": "t" * 40}))
    assert server.is_guarded(tmp_path)  # of a server that does not run there is nothing to say
    for guard in (None, "of another version"):
        if guard is not None:
            monkeypatch.setenv(environment.GUARDED, guard)
        process = pretended(tmp_path, "import time\n")
        assert not server.is_guarded(tmp_path)
        with pytest.raises(ServerError, match="an earlier version of trueup started this server") as raised:
            people.add(tmp_path, "Ann")
        chosen = f"--data-dir {tmp_path}"
        again = f"trueup labelstudio stop {chosen} && trueup labelstudio start {chosen} --port 8123"
        assert again in str(raised.value)
        project = Project(LabelStudioConfig(data_dir=tmp_path), tmp_path / "store")
        assert project._unguarded() == []  # nobody has a login
        ann = {"id": 2, "name": "Ann", "email": "ann@trueup.local", "password": "p"}
        (tmp_path / people.FILE).write_text(json.dumps({"people": [ann]}))
        (said,) = project._unguarded()
        assert again in said
        (tmp_path / people.FILE).unlink()
        process.kill()
        process.wait()
    monkeypatch.setenv(environment.GUARDED, environment.guard())
    process = pretended(tmp_path, "import time\n")
    assert server.is_guarded(tmp_path)
    process.kill()
    process.wait()
