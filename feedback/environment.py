"""Label Studio's own environment: an isolated folder of packages, a migrated database, and clean variables."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from trueup.run import environments

VERSION = "1.23.2"
WHAT = "Label Studio's environment"  # in messages
DATABASE = "label_studio.sqlite3"
GUARDED = "TRUEUP_GUARD"  # with which a server knows the version of what was added to it
INSIDE = Path(__file__).with_name("inside")  # modules that Label Studio loads


def guard() -> str:
    """The version of what is added to Label Studio: another one as soon as a character of it is."""
    found = sorted(path for path in INSIDE.iterdir() if path.suffix in (".py", ".html"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in found)).hexdigest()[:12]


def folder() -> Path:
    """The folder of Label Studio's own environment; uv makes it in seconds at the first call."""
    return environments.make(f"label-studio-{VERSION}", f"label-studio=={VERSION}", WHAT)


def empty_database(folder: Path) -> Path:
    """A migrated database without a user, made once an environment: the migrations take most of a minute.

    In WAL mode, which stays with the file, people who judge at the same time don't wait for each other's readers, and
    a vote takes half the time.
    """
    made = folder / "empty.sqlite3"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            migrate(folder, variables(Path(scratch), {"email": "", "password": "", "token": ""}))
            database = Path(scratch) / DATABASE
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            database.replace(made)
    return made


def migrate(folder: Path, env: dict[str, str]) -> None:
    """Make or update the tables of the database that `env` tells of. Raises ServerError where that fails."""
    script = next(folder.glob("lib/python3*/site-packages/label_studio/manage.py"), folder / "manage.py")
    environments.run([str(folder / "bin/python"), str(script), "migrate", "--no-input"], WHAT, env)


def variables(data_dir: Path, known: dict[str, Any]) -> dict[str, str]:
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
            "LABEL_STUDIO_HOST": "",  # its pages then work under every address by which a browser came
            "DJANGO_DB": "sqlite",
            "DJANGO_SETTINGS_MODULE": "trueup_settings",
            "PYTHONPATH": str(INSIDE),
            GUARDED: guard(),
            "CSRF_TRUSTED_ORIGINS": known.get("address", ""),  # a proxy may pass on another host's name
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "FEATURE_FLAGS_OFFLINE": "true",
            "CONVERTER_DOWNLOAD_RESOURCES": "false",
        }
    )
