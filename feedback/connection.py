"""Where a Label Studio server is, and the token that opens it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueup.errors import ServerError
from trueup.run.address import canonical, clean, has_password

VARIABLE = "LABEL_STUDIO_API_KEY"


@dataclass(frozen=True)
class Connection:
    """Where the server is, and the token, which never shows in a repr."""

    url: str
    token: str = field(repr=False)


def credentials(data_dir: Path) -> dict[str, Any]:
    """Address, admin and token of our own server; empty before its first start. Raises ServerError on a broken file."""
    path = data_dir / "credentials.json"
    try:
        known = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        known = None
    names = ("url", "email", "password", "token", "host", "address", "database")
    if not isinstance(known, dict) or not all(isinstance(known.get(name, ""), str) for name in names):
        raise ServerError(
            str(path),
            found="no credentials that can be read",
            expected="what the first start of Label Studio wrote",
            next_step="restore it from a copy; without one, move the folder aside and start a new server",
        )
    return known


def is_ours(data_dir: Path, url: str) -> bool:
    """True when `url` is the address of the server that runs in `data_dir`, however it is spelled."""
    known = credentials(data_dir)
    return canonical(url) in {canonical(known[name]) for name in ("url", "address") if known.get(name)}


def connect(data_dir: Path, url: str | None = None) -> Connection:
    """The connection to our server, or to `url` with the token of LABEL_STUDIO_API_KEY; ours goes nowhere else."""
    known = credentials(data_dir)
    if url is not None and has_password(url):
        raise ServerError(
            "labelstudio.url",
            found="a name or password before the host",
            expected=f"the address alone; the token goes into {VARIABLE}",
            next_step="take it out",
        )
    try:
        address = clean(url) if url is not None else known.get("url")
    except ValueError as error:
        raise ServerError(
            "labelstudio.url", found=repr(url), expected=str(error), next_step="correct labelstudio.url"
        ) from None
    if address and known.get("token") and is_ours(data_dir, address):
        return Connection(address, known["token"])
    if not address:
        raise ServerError(
            str(data_dir / "credentials.json"),
            found="no address or token",
            next_step=f"trueup labelstudio start, or set labelstudio.url and {VARIABLE}",
        )
    return Connection(address, _token_of_environment(address))


def _token_of_environment(address: str) -> str:
    token = os.environ.get(VARIABLE, "").strip()  # a line end is easily copied along
    fault = ""
    if not token:
        fault = "no token: it is not set"
    elif not token.isascii() or not token.isprintable() or " " in token:
        fault = "no token: it holds characters that none has"
    if fault:
        raise ServerError(
            f"{VARIABLE}, for {address}",
            found=fault,
            expected="a token of that server (Account & Settings > Access Token)",
            next_step=f"export {VARIABLE}=...",
        )
    return token
