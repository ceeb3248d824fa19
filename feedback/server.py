"""A Label Studio server of our own: isolated environment, SQLite, 127.0.0.1, telemetry off, admin without a click."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from trueup.errors import PortTakenError, ServerError

VERSION = "1.23.2"
DATABASE = "label_studio.sqlite3"
START_LIMIT_S = 180
STOP_LIMIT_S = 10


@dataclass(frozen=True)
class Connection:
    """Where the server is, and the token, which never shows in a repr."""

    url: str
    token: str = field(repr=False)


def environment() -> Path:
    """The folder of Label Studio's own environment; uv makes it in seconds at the first call."""
    cache = Path(os.environ.get("TRUEUP_CACHE") or Path.home() / ".cache" / "trueup")
    folder = cache / f"label-studio-{VERSION}"
    if not (folder / ".complete").exists():
        uv = [sys.executable, "-m", "uv"]
        _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        _run([*uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), f"label-studio=={VERSION}"])
        (folder / ".complete").touch()
    return folder


def empty_database(folder: Path) -> Path:
    """A migrated database without a user, made once an environment: the migrations take most of a minute.

    In WAL mode, which stays with the file, people who judge at the same time don't wait for each other's readers, and
    a vote takes half the time.
    """
    made = folder / "empty.sqlite3"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            env = _server_env(Path(scratch), {"email": "", "password": "", "token": "", "url": ""})
            script = next(folder.glob("lib/python3*/site-packages/label_studio/manage.py"), folder / "manage.py")
            _run([str(folder / "bin/python"), str(script), "migrate", "--no-input"], env)
            database = Path(scratch) / DATABASE
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            database.replace(made)
    return made


def start(data_dir: Path, port: int, progress: Callable[[str], None] = lambda text: None) -> Connection:
    """Start the server, or find it running, and await /health. Raises ServerError when the port is taken."""
    process = None  # ours to watch: the system shows a new process's command line a moment after it began
    if not is_running(data_dir):
        _refuse_taken(port)
        progress("making Label Studio's environment")
        folder = environment()
        progress("making Label Studio's database")
        process = _launch(folder, data_dir, port)
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


def _launch(folder: Path, data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # its database holds the token as well
    known = _credentials(data_dir, port)
    if not (data_dir / DATABASE).exists():
        aside = data_dir / f"{DATABASE}.tmp"
        shutil.copyfile(empty_database(folder), aside)
        aside.replace(data_dir / DATABASE)
    command = [str(folder / "bin/label-studio"), "start", "--no-browser", "--internal-host", "127.0.0.1"]
    with (data_dir / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", str(data_dir)],
            env=_server_env(data_dir, known),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    (data_dir / "server.pid").write_text(str(process.pid))
    return process


def connect(data_dir: Path, url: str | None = None) -> Connection:
    """The connection to our server, or to `url` with the token of LABEL_STUDIO_API_KEY."""
    path = data_dir / "credentials.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    ours = url is None or url.rstrip("/") == known.get("url")  # our token goes to no other server
    address, token = url or known.get("url"), known.get("token") if ours else os.environ.get("LABEL_STUDIO_API_KEY")
    if not address or not token:
        raise ServerError(
            str(path), found="no address or token", next_step="trueup labelstudio start, or set LABEL_STUDIO_API_KEY"
        )
    return Connection(address, token)


def login(data_dir: Path) -> dict[str, str]:
    """Address, e-mail and password of our server's admin. Raises ServerError when none was made here."""
    path = data_dir / "credentials.json"
    if not path.exists():
        raise ServerError(str(path), found="no such file", next_step="trueup labelstudio start")
    known: dict[str, str] = json.loads(path.read_text())
    return {key: known[key] for key in ("url", "email", "password")}


def is_running(data_dir: Path) -> bool:
    """True when the process of server.pid is alive and is Label Studio."""
    try:
        pid = int((data_dir / "server.pid").read_text())
        return b"label-studio" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False


def stop(data_dir: Path) -> bool:
    """Stop the server and wait until it has let go of its port; False when none ran. The data stays."""
    if not is_running(data_dir):
        return False
    pid, began = int((data_dir / "server.pid").read_text()), time.monotonic()
    os.killpg(pid, signal.SIGTERM)
    while is_running(data_dir):
        if time.monotonic() - began > STOP_LIMIT_S:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.1)
    (data_dir / "server.pid").unlink()
    return True


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PortTakenError(
                f"127.0.0.1:{port}",
                found="the port is taken",
                next_step=f"another one, such as labelstudio.port: {port + 1} (trueup demo --port {port + 1})",
            ) from None


def _credentials(data_dir: Path, port: int) -> dict[str, str]:
    """Address, admin and token in a file only its owner can read; made once, the port kept current."""
    path = data_dir / "credentials.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault("email", "admin@trueup.local")
    known.setdefault("password", secrets.token_urlsafe(12))
    known.setdefault("token", secrets.token_hex(20))
    known["url"] = f"http://127.0.0.1:{port}"
    aside = path.with_name("credentials.json.tmp")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(known, out)
    aside.replace(path)
    return known


def _server_env(data_dir: Path, known: dict[str, str]) -> dict[str, str]:
    """The server reads bare HOST, PORT, DEBUG, USERNAME, PASSWORD and CI; its home page would fetch from the web."""
    unwanted = {"HOST", "PORT", "DEBUG", "USERNAME", "PASSWORD", "CI"}
    env = {key: value for key, value in os.environ.items() if key not in unwanted}
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    local = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    return (
        env
        | dead
        | local
        | {
            "LABEL_STUDIO_USERNAME": known["email"],
            "LABEL_STUDIO_PASSWORD": known["password"],
            "LABEL_STUDIO_USER_TOKEN": known["token"],
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
            "LABEL_STUDIO_HOST": known["url"],
            "DJANGO_DB": "sqlite",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "FEATURE_FLAGS_OFFLINE": "true",
            "CONVERTER_DOWNLOAD_RESOURCES": "false",
        }
    )


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServerError("Label Studio's environment", found=reason, next_step="mend it and type the same command")
