"""Addresses of servers: read once, compared as a browser would, and never one that opens nothing."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

EXPECTED = "http:// or https:// and a host, such as https://labels.example.org"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"http": 80, "https": 443}
PAGES = (
    "/projects",
    "/user",
    "/api",
    "/organization",
)  # of Label Studio: copied from a browser, with the server before


def clean(url: str) -> str:
    """The address without white space around it and slashes after it. Raises ValueError with what was expected."""
    text = url.strip()
    if "@" in text:
        return text  # it may hold a password, which the caller's message would repeat: `has_password` finds it
    parts = _split(text)
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("an address without white space")
    page = next((name for name in PAGES if f"{parts.path}/".find(f"{name}/") >= 0), None)
    if page or parts.query or parts.fragment:
        server = f"{parts.scheme}://{parts.netloc}{parts.path.split(page)[0] if page else parts.path}"
        raise ValueError(f"the server's address, not a page's: {server.rstrip('/')}")
    return text.rstrip("/")


def has_password(url: str) -> bool:
    """True of http://name:password@host, and of whatever looks like it."""
    return "@" in url


def canonical(url: str) -> str:
    """One spelling for all addresses of a server: letter case, default port, trailing slash and loopback's names.

    An address that is none is its own spelling.
    """
    try:
        parts = _split(url.strip())
    except ValueError:
        return url
    host = "127.0.0.1" if parts.hostname in LOOPBACK else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or PORTS[parts.scheme]}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """True when the address is this machine's own."""
    return urlsplit(canonical(url)).hostname == "127.0.0.1"


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # an open bracket, a port that is no number
        raise ValueError(EXPECTED) from None
    if parts.scheme not in PORTS or not parts.hostname or port == 0:
        raise ValueError(EXPECTED)
    return parts
