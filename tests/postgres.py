"""A PostgreSQL server of Debian's own, run for a while in a temporary folder by a user who may do nothing else."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
USER = "nobody"  # PostgreSQL refuses to run as root


@dataclass(frozen=True)
class Database:
    """Where it is, and its owner's password."""

    url: str  # without the password
    password: str = field(repr=False)
    port: int = 0


def _as_unprivileged(*command: str | Path) -> list[str]:
    words = [str(word) for word in command]
    return ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups", *words] if os.getuid() == 0 else words


def _run(*command: str | Path, **more: str) -> None:
    subprocess.run(_as_unprivileged(*command), check=True, capture_output=True, cwd="/tmp", **more)  # type: ignore[call-overload]


@contextmanager
def running() -> Iterator[Database]:
    """A server that listens on 127.0.0.1 and asks for a password, with the empty database `labels`."""
    assert BINARIES is not None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = secrets.token_urlsafe(12)
    (folder / "password").write_text(password)
    if os.getuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, USER, "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    cluster = folder / "cluster"
    initdb = [BINARIES / "initdb", "-D", cluster, "-U", "labels", "-A", "scram-sha-256", "--no-sync", "--encoding=UTF8"]
    _run(*initdb, f"--pwfile={folder / 'password'}")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    _run(BINARIES / "pg_ctl", "-D", cluster, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        url = f"postgresql://labels@127.0.0.1:{port}"
        made = [BINARIES / "psql", f"{url}/postgres", "-c", "CREATE DATABASE labels"]
        env = os.environ | {"PGPASSWORD": password}
        subprocess.run([str(word) for word in made], check=True, capture_output=True, env=env)
        yield Database(f"{url}/labels", password, port)
    finally:
        _run(BINARIES / "pg_ctl", "-D", cluster, "-m", "immediate", "stop")
        shutil.rmtree(folder)
