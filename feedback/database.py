"""Where our own Label Studio keeps its data: a file of SQLite's in its folder, or a PostgreSQL that somebody runs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trueup.errors import ServerError
from trueup.feedback import environment
from trueup.feedback.connection import credentials

PATIENCE_S = 30  # while the server writes
EXPECTED = "postgresql://USER@HOST:PORT/NAME, such as postgresql://labels@127.0.0.1:5432/labels"
SECRET = "the password goes into PGPASSWORD, or into ~/.pgpass, which its owner alone can read"  # noqa: S105 - no secret
CONNECT = "import sys, psycopg; psycopg.connect(sys.argv[1], connect_timeout=10).close()"
EXECUTE = """
import json, sys, psycopg
with psycopg.connect(sys.argv[1], connect_timeout=10) as connection:
    for statement, values in json.load(sys.stdin):
        connection.execute(statement, values)
"""


def clean(address: str) -> str:
    """The address of a PostgreSQL database. Raises ServerError where it is none, or holds a password."""
    try:
        parts = urlsplit(address.strip())
        named = parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1 and parts.port != 0
    except ValueError:
        named = False
    if not named or parts.password is not None or parts.query or parts.fragment or "/" in parts.path[1:]:
        found = "a password in the address" if named and parts.password is not None else "no address of a database"
        next_step = f"trueup labelstudio start --database postgresql://USER@HOST/NAME; {SECRET}"
        raise ServerError("--database", found=found, expected=f"{EXPECTED}; {SECRET}", next_step=next_step)
    return f"postgresql://{parts.netloc}{parts.path}"


def variables(address: str | None) -> dict[str, str]:
    """What tells Label Studio which database to use. PostgreSQL's own client finds the password."""
    if address is None:
        return {"DJANGO_DB": "sqlite"}
    parts = urlsplit(address)
    return {
        "DJANGO_DB": "default",
        "POSTGRE_NAME": unquote(parts.path[1:]),
        "POSTGRE_USER": unquote(parts.username or ""),
        "POSTGRE_HOST": parts.hostname or "",
        "POSTGRE_PORT": str(parts.port or 5432),
        "POSTGRE_PASSWORD": "",
    }


def check(data_dir: Path, address: str) -> None:
    """Raises ServerError where the database cannot be used for the server of this folder."""
    if "database" not in credentials(data_dir) and (data_dir / environment.DATABASE).exists():
        raise ServerError(
            str(data_dir),
            found=f"a server that keeps its projects and people in {environment.DATABASE} there",
            expected="a new folder: nothing is moved from one database to another",
            next_step=f"trueup labelstudio start --data-dir ANOTHER --database {address}",
        )
    done = _python([CONNECT, address])
    if done.returncode != 0:
        raise ServerError(
            address,
            found=f"PostgreSQL cannot be used: {_reason(done.stderr)}",
            expected="a database that this user may connect to, and make tables in",
            next_step=f"correct that ({SECRET}), then run the same command again",
        )


def execute(data_dir: Path, statements: Sequence[tuple[str, Sequence[int | str]]]) -> None:
    """Carry out statements, with %s in place of each value, together or not at all. Raises ServerError."""
    address = credentials(data_dir).get("database")
    if address:
        done = _python([EXECUTE, address], json.dumps(statements))
        if done.returncode != 0:
            raise ServerError(
                address,
                found=_reason(done.stderr),
                next_step=f"correct that ({SECRET}), then run the same command again",
            )
        return
    path = data_dir / environment.DATABASE
    if not path.exists():
        raise ServerError(str(path), found="no such file", next_step="look whether --data-dir is the right folder")
    with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as connection, connection:
        for statement, values in statements:
            connection.execute(statement.replace("%s", "?"), tuple(values))


def _python(arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in Label Studio's environment, which has a driver for PostgreSQL."""
    python = str(environment.folder() / "bin/python")
    return subprocess.run([python, "-c", *arguments], input=text, capture_output=True, text=True, check=False)


def _reason(traceback: str) -> str:
    """What PostgreSQL's driver said, in one line."""
    lines = traceback.strip().splitlines() or ["no reason given"]
    begins = max((n for n, line in enumerate(lines) if line.startswith("psycopg.")), default=len(lines) - 1)
    return " ".join(" ".join(lines[begins:]).split()).partition("Error: ")[2] or lines[-1]
