"""A shell has its background jobs ignore SIGINT: what tests start and interrupt must end all the same."""

import signal
import subprocess
import sys
from pathlib import Path

CHILD = """
import subprocess, sys, signal
import conftest
sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
started = subprocess.Popen(sleeper, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
started.stdout.readline()
started.send_signal(signal.SIGINT)
print("ended by", -started.wait(20))
"""


def test_sigint_ends_what_tests_start_though_the_parent_ignores_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=Path(__file__).parents[1],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"ended by {int(signal.SIGINT)}" in done.stdout, done.stdout + done.stderr
