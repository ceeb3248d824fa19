"""What a run file may name outside itself: a server's address."""

from __future__ import annotations

from urllib.parse import urlsplit


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
