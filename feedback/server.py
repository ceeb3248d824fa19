"""A Label Studio server of our own: isolated environment, SQLite, telemetry off, admin without a click."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from trueup.errors import PortTakenError, ServerError
from trueup.feedback import environment, keys
from trueup.feedback.connection import Connection, connect, credentials

START_LIMIT_S = 180
STOP_LIMIT_S = 10
LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - what people may choose


def start(
    data_dir: Path,
    port: int,
    progress: Callable[[str], None] = lambda text: None,
    *,
    host: str | None = None,
    address: str | None = None,
) -> Connection:
    """Start the server, or find it running, and await /health. Raises ServerError when the port is taken.

    It listens on `host`, and people elsewhere are told `address`; by default both are as at the last start, and this
    machine alone at the first.
    """
    process = None  # ours to watch: the system shows a new process's command line a moment after it began
    if is_running(data_dir):
        _close_to_others(data_dir)
        _refuse_change(data_dir, host, address)
    else:
        host = host or credentials(data_dir).get("host", LOOPBACK)
        _refuse_taken(port, host)
        progress("making Label Studio's environment, once")
        folder = environment.folder()
        progress("making Label Studio's database; the first takes about a minute")
        process = _launch(folder, data_dir, port, host, address)
    connection, began = connect(data_dir), time.monotonic()
    while (process.poll() is None if process else is_running(data_dir)) and time.monotonic() - began < START_LIMIT_S:
        try:
            if httpx.get(f"{connection.url}/health", timeout=2, trust_env=False).status_code == 200:
                return connection
        except httpx.HTTPError:
            pass
        progress(f"Label Studio starts, {time.monotonic() - began:.0f} s")
        time.sleep(0.5)
    stop(data_dir)
    raise ServerError(connection.url, found="Label Studio did not start", next_step=f"read {data_dir / 'server.log'}")


def _launch(folder: Path, data_dir: Path, port: int, host: str, address: str | None) -> subprocess.Popen[bytes]:
    keys.install(folder)
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    known, database = _credentials(data_dir, port, host, address), data_dir / environment.DATABASE
    if not database.exists():
        aside = data_dir / f"{environment.DATABASE}.tmp"
        shutil.copyfile(environment.empty_database(folder), aside)
        aside.replace(database)
    _close_to_others(data_dir)
    command = [str(folder / "bin/label-studio"), "start", "--no-browser", "--internal-host", host]
    with (data_dir / "server.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", str(data_dir)],
            cwd=data_dir,  # by which it is found again, wherever the folder has moved
            env=environment.variables(data_dir, known),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o077,
        )


def _close_to_others(data_dir: Path) -> None:
    """The database and the log hold people's texts, and the database the admin's token in clear."""
    try:
        data_dir.chmod(0o700)
        for path in data_dir.glob(f"{environment.DATABASE}*"):  # SQLite's own files beside it as well
            path.chmod(0o600)
    except PermissionError:
        raise ServerError(
            str(data_dir),
            found="a folder of somebody else's, which cannot be closed to other users",
            expected="a folder of your own: Label Studio's database in it holds the admin's token",
            next_step="set labelstudio.data_dir (or --data-dir) to a folder of your own",
        ) from None


def login(data_dir: Path) -> dict[str, str]:
    """Address, e-mail and password of our server's admin. Raises ServerError when none was made here."""
    known = credentials(data_dir)
    if not all(name in known for name in ("url", "email", "password")):
        raise ServerError(str(data_dir / "credentials.json"), found="no login", next_step="trueup labelstudio start")
    return {key: known[key] for key in ("url", "email", "password")}


def address_of(data_dir: Path) -> str:
    """Where people reach our server: from other machines, if it listens to them."""
    known = credentials(data_dir)
    found: str = known.get("address") or known.get("url", "")
    return found


def listens_to_others(data_dir: Path) -> bool:
    """True when our server takes requests of other machines."""
    return not _is_loopback(credentials(data_dir).get("host", LOOPBACK))


def is_running(data_dir: Path) -> bool:
    """True while a Label Studio of this folder runs: not of a copy of it, nor of what it was copied from."""
    return _process(data_dir) is not None


def stop(data_dir: Path) -> bool:
    """Stop the server and wait until it has let go of its port; False when none ran. The data stays."""
    pid, began = _process(data_dir), time.monotonic()
    if pid is None:
        return False
    os.killpg(pid, signal.SIGTERM)
    while _process(data_dir) == pid:
        if time.monotonic() - began > STOP_LIMIT_S:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.1)
    return True


def _process(data_dir: Path) -> int | None:
    """The leader of the Label Studio that works in this folder, or was started for it, as Linux lists processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if not any(word.endswith(b"label-studio") for word in words) or os.getpgid(int(folder.name)) != int(
                folder.name
            ):
                continue
            if (folder / "cwd").samefile(data_dir) or os.fsencode(data_dir) in words:
                return int(folder.name)
        except OSError:  # it ended meanwhile, belongs to somebody else, or there is no such folder
            continue
    return None


def _refuse_change(data_dir: Path, host: str | None, address: str | None) -> None:
    known = credentials(data_dir)
    now = known.get("host", LOOPBACK)
    if (host or now) != now or (address or known.get("address")) != known.get("address"):
        raise ServerError(
            known["url"],
            found=f"it runs already, listening on {now}",
            next_step="trueup labelstudio stop, then start it again",
        )


def _refuse_taken(port: int, host: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise _no_address(host) from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _no_address(host) from None
            raise PortTakenError(
                f"{host}:{port}",
                found="the port is taken",
                next_step=f"take another one: labelstudio.port: {port + 1} in the run file, "
                f"or --port {port + 1} of trueup labelstudio start and trueup demo",
            ) from None


def _no_address(host: str) -> ServerError:
    return ServerError(
        "--host",
        found=f"{host!r}, which is no IPv4 address of this machine",
        expected=f"{LOOPBACK} for this machine alone, {EVERYWHERE} for every network it is in, or one of its addresses",
        next_step=f"trueup labelstudio start --host {EVERYWHERE}",
    )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")


def _credentials(data_dir: Path, port: int, host: str, address: str | None) -> dict[str, Any]:
    """Address, admin and token in a file only its owner can read; made once, host and port kept current."""
    path, known = data_dir / "credentials.json", credentials(data_dir)
    known.setdefault("email", "admin@trueup.local")
    known.setdefault("password", secrets.token_urlsafe(12))
    known.setdefault("token", secrets.token_hex(20))
    reached = LOOPBACK if _is_loopback(host) or host == EVERYWHERE else host
    name = socket.gethostname() if host == EVERYWHERE else reached
    as_before = (
        known.get("address") if known.get("host") == host and known.get("url", "").endswith(f":{port}") else None
    )
    known |= {"url": f"http://{reached}:{port}", "host": host}
    known["address"] = (address or as_before or f"http://{name}:{port}").rstrip("/")
    aside = path.with_name("credentials.json.tmp")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(known, out)
    aside.replace(path)
    return known
