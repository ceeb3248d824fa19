"""The log of faults: tracebacks with their time and command, without secrets, readable by their owner alone."""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from trueup import __version__

NAME = "trueup.log"
MAX_BYTES = 1_000_000
NUM_OLD = 2  # trueup.log.1 and .2
MIN_SECRET = 6  # characters: shorter values of a variable named TOKEN are no secrets, and would blot out words
SECRET_NAMES = re.compile(r"TOKEN|KEY|PASSW|SECRET|CREDENTIAL", re.IGNORECASE)
SECRET_SHAPES = (
    re.compile(r"(?<=hf_)[A-Za-z0-9]{16,}"),
    re.compile(r"(?i)(?<=authorization: )(token|bearer|basic) \S+"),
    re.compile(r"(?<=://)[^/\s@]+:[^/\s@]+(?=@)"),
)


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        raise


def keep(error: BaseException, folder: Path | None) -> Path | None:
    """Append the traceback to the log in `folder`, or in the cache, or in the temporary folder; return which.

    None when it can be written nowhere, as on a full disk.
    """
    formatter = logging.Formatter()
    text = formatter.formatException((type(error), error, error.__traceback__))
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    command = shlex.join(["trueup", *sys.argv[1:]])
    head = f"{moment} trueup {__version__}, Python {platform.python_version()}: {command}"
    record = logging.LogRecord("trueup", logging.ERROR, "", 0, scrubbed(f"{head}\n{text}\n", folder), None, None)
    for place in _places(folder):
        mask = os.umask(0o077)
        try:
            place.mkdir(parents=True, exist_ok=True)
            handler = _Handler(
                place / NAME, maxBytes=MAX_BYTES, backupCount=NUM_OLD, encoding="utf-8", errors="replace"
            )
            try:
                handler.emit(record)
            finally:
                handler.close()
            return place / NAME
        except OSError:
            continue
        finally:
            os.umask(mask)
    return None


def scrubbed(text: str, folder: Path | None = None) -> str:
    """`text` without the secrets that this process could know, and without what looks like one."""
    for secret in sorted(set(_secrets(folder)), key=len, reverse=True):
        if len(secret) >= MIN_SECRET:
            text = text.replace(secret, "[secret]")
    for shape in SECRET_SHAPES:
        text = shape.sub("[secret]", text)
    return text


def _places(folder: Path | None) -> Iterator[Path]:
    from trueup.models.packaged import cache_dir

    if folder is not None and folder.is_dir():
        yield folder
    yield cache_dir()
    yield Path(tempfile.gettempdir()) / f"trueup-{os.getuid()}"


def _secrets(folder: Path | None) -> Iterator[str]:
    """Values of variables, the hub's token, and what is in the credentials of a server of ours."""
    yield from (value.strip() for name, value in os.environ.items() if SECRET_NAMES.search(name))
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "token"
    folders = [Path.cwd() / "labelstudio", *([folder.parents[1] / "labelstudio"] if folder else [])]
    for path in (hub, *(place / "credentials.json" for place in folders)):
        try:
            written = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        if path == hub:
            yield written.strip()
        else:
            yield from re.findall(r'"(?:token|password)": *"([^"]+)"', written)
