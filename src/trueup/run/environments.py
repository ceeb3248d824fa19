"""Isolated folders of packages, for programs whose packages cannot be beside trueup's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trueup.errors import ServerError


def folder(name: str) -> Path:
    """Where the environment `name` is, or would be: below $TRUEUP_CACHE, by default ~/.cache/trueup."""
    return Path(os.environ.get("TRUEUP_CACHE") or Path.home() / ".cache" / "trueup") / name


def is_made(name: str) -> bool:
    """True where every package of the environment was installed."""
    return (folder(name) / ".complete").exists()


def make(name: str, requirement: str, what: str) -> Path:
    """The folder of the environment, in which uv installs `requirement` once. `what` names it in messages.

    Raises ServerError where that fails.
    """
    made = folder(name)
    if not is_made(name):
        uv = [sys.executable, "-m", "uv"]
        run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(made)], what)
        run([*uv, "pip", "install", "--quiet", "--python", str(made / "bin/python"), requirement], what)
        (made / ".complete").touch()
    return made


def run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    """Run a command of `what` to its end. Raises ServerError with the last line it wrote where it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServerError(what, found=reason, next_step="correct that, then run the same command again")
