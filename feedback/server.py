"""A Label Studio server of our own: isolated environment, telemetry off, admin without a click."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from trueup.errors import ServerError
from trueup.feedback import database, environment, keys, reach
from trueup.feedback.connection import Connection, connect, credentials

START_LIMIT_S = 180
STOP_LIMIT_S = 10


def start(
    data_dir: Path,
    port: int,
    progress: Callable[[str], None] = lambda text: None,
    *,
    host: str | None = None,
    public_url: str | None = None,
    database_url: str | None = None,
) -> Connection:
    """Start the server, or find it running, and await /health. Raises ServerError when the port is taken.

    It listens on `host`, and people elsewhere are told `public_url`; by default both are as at the last start, and this
    machine alone at the first. Its data are in a file of SQLite's, or in the PostgreSQL at `database_url`.
    """
    public_url = reach.public(public_url) if public_url is not None else None
    database_url = database.clean(database_url) if database_url is not None else None
    process = None  # ours to watch: the system shows a new process's command line a moment after it began
    if is_running(data_dir):
        _close_to_others(data_dir)
        _refuse_change(data_dir, host, public_url, database_url)
    else:
        host = host or credentials(data_dir).get("host", reach.LOOPBACK)
        reach.refuse_taken(port, host)
        progress("making Label Studio's environment, once")
        folder = environment.folder()
        progress("making Label Studio's database; the first takes about a minute")
        if used := database_url or credentials(data_dir).get("database"):
            database.check(data_dir, used)
        process = _launch(folder, data_dir, _chosen(data_dir, port, host, public_url, database_url))
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


def _launch(folder: Path, data_dir: Path, known: dict[str, Any]) -> subprocess.Popen[bytes]:
    keys.install(folder)
    env = environment.variables(data_dir, known) | database.variables(known.get("database"))
    if known.get("database"):
        environment.migrate(folder, env)
    elif not (kept := data_dir / environment.DATABASE).exists():
        aside = kept.with_name(f"{environment.DATABASE}.tmp")
        shutil.copyfile(environment.empty_database(folder), aside)
        aside.replace(kept)
    _close_to_others(data_dir)
    command = [str(folder / "bin/label-studio"), "start", "--no-browser", "--internal-host", known["host"]]
    with (data_dir / "server.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--port", known["url"].rpartition(":")[2], "--data-dir", str(data_dir)],
            cwd=data_dir,  # by which it is found again, wherever the folder has moved
            env=env,
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


def is_running(data_dir: Path) -> bool:
    """True while a Label Studio of this folder runs: not of a copy of it, nor of what it was copied from."""
    return _process(data_dir) is not None


def is_guarded(data_dir: Path) -> bool:
    """False of a running server that an earlier version of trueup started, whose logins may open what ours may not."""
    pid = _process(data_dir)
    try:
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if pid is not None else []
    except OSError:  # it ended meanwhile
        return True
    return pid is None or f"{environment.GUARDED}={environment.guard()}".encode() in given


def restart(data_dir: Path) -> str:
    """The command that starts a server anew; its data, logins and judgements stay."""
    chosen = f"--data-dir {shlex.quote(str(data_dir))}"
    port = credentials(data_dir).get("url", "").rpartition(":")[2]
    return f"trueup labelstudio stop {chosen} && trueup labelstudio start {chosen}{f' --port {port}' if port else ''}"


def stop(data_dir: Path) -> bool:
    """Stop the server and wait until it has let go of its port; False when none ran. The data stays."""
    pid, began = _process(data_dir), time.monotonic()
    if pid is None:
        return False
    os.killpg(pid, signal.SIGTERM)
    while not _has_ended(pid):
        if time.monotonic() - began > STOP_LIMIT_S:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.1)
    return True


def _has_ended(pid: int) -> bool:
    """True when nothing of the process is left: its port closes with its last thread, after its command line."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except (OSError, IndexError):
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


def _refuse_change(data_dir: Path, host: str | None, public_url: str | None, database_url: str | None) -> None:
    known = credentials(data_dir)
    now = known.get("host", reach.LOOPBACK)
    wanted = {"host": host or now, "address": public_url, "database": database_url}
    if any(value is not None and value != known.get(name, now) for name, value in wanted.items()):
        kept = f", its data in {known['database']}" if known.get("database") else ""
        raise ServerError(
            known["url"],
            found=f"it runs already, listening on {now}, for people at {reach.address_of(data_dir)}{kept}",
            next_step="trueup labelstudio stop, then start it again",
        )


def _chosen(data_dir: Path, port: int, host: str, public_url: str | None, database_url: str | None) -> dict[str, Any]:
    """Address, admin and token in a file only its owner can read; made once, what was chosen kept current."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, known = data_dir / "credentials.json", credentials(data_dir)
    known.setdefault("email", "admin@trueup.local")
    known.setdefault("password", secrets.token_urlsafe(12))
    known.setdefault("token", secrets.token_hex(20))
    known |= reach.told(known, port, host, public_url)
    if database_url:
        known["database"] = database_url
    aside = path.with_name("credentials.json.tmp")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(known, out)
    aside.replace(path)
    return known
