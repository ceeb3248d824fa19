"""What our own server does that needs no server: stopping waits, and the token goes to nobody else."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trueup.errors import ServerError
from trueup.feedback import server

SLOW = "import signal,sys,time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))\n"
DEAF = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.mark.parametrize("code", [SLOW, DEAF])
def test_stop_returns_when_the_process_is_gone(tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_LIMIT_S", 2)
    command = [sys.executable, "-c", f"{code}print('up', flush=True)\ntime.sleep(60)", "label-studio"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    (tmp_path / "server.pid").write_text(str(process.pid))
    began = time.monotonic()
    assert server.stop(tmp_path) is True
    assert time.monotonic() - began > 0.9
    process.wait(timeout=0.5)  # its command line is gone a moment before Linux lets us collect it
    assert server.stop(tmp_path) is False


def test_a_stale_pid_file_is_no_running_server(tmp_path: Path) -> None:
    (tmp_path / "server.pid").write_text("1")  # alive, and not Label Studio
    assert server.is_running(tmp_path) is False


def test_our_token_goes_to_our_server_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"url": "http://127.0.0.1:8090", "token": "ours"}))
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    assert server.connect(tmp_path).token == "ours"
    assert server.connect(tmp_path, "http://127.0.0.1:8090/").token == "ours"
    with pytest.raises(ServerError, match="LABEL_STUDIO_API_KEY"):
        server.connect(tmp_path, "https://labels.example.org")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "theirs")
    assert server.connect(tmp_path, "https://labels.example.org").token == "theirs"
    assert server.connect(tmp_path).token == "ours"
