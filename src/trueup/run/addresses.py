"""What a run file may name outside itself: a server's address, a model's folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

PACKAGE = "package:"


def server(url: str) -> str:
    """`url` as it is. Raises ValueError, saying what an address looks like, when no server can be reached by it."""
    expected = "an address such as https://labels.example.org or http://127.0.0.1:8080"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{expected}, with http:// or https:// in front")
    if not parts.hostname or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(f"{expected}, with a host and without spaces")
    if "@" in parts.netloc:
        raise ValueError(f"{expected}, without a name or password; the token goes into LABEL_STUDIO_API_KEY")
    if parts.query or parts.fragment:
        raise ValueError(f"{expected}: the server's own address, without '?' or '#' and what follows")
    return url


def base(named: str, folder: Path) -> str:
    """`model.base` of a run file in `folder`: a folder in full, also one that is missing; others as they are.

    What looks like a path, or begins with a folder that is there, is never taken for a hub id.
    """
    if named.startswith(PACKAGE):
        return named
    path = Path(named).expanduser() if named.startswith("~") else Path(named)
    beside = folder / path
    looks_like_a_path = named.startswith((".", "/", "~")) or named.endswith("/") or "\\" in named
    below_a_folder = len(path.parts) > 2 or (len(path.parts) == 2 and (folder / path.parts[0]).is_dir())
    return str(beside) if looks_like_a_path or below_a_folder or beside.exists() else named
