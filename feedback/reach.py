"""Where our own Label Studio listens, and how people reach it: directly, through a tunnel, or through a proxy."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from urllib.parse import urlsplit

from trueup.errors import PortTakenError, ServerError
from trueup.feedback.connection import credentials
from trueup.run.address import EXPECTED, clean, has_password, is_loopback

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - what people may choose


def address_of(data_dir: Path) -> str:
    """Where people reach our server: from other machines, if it listens to them, or if a proxy or tunnel does."""
    known = credentials(data_dir)
    found: str = known.get("address") or known.get("url", "")
    return found


def is_reached_by_others(data_dir: Path) -> bool:
    """True when people at other machines can open the address that they are given."""
    listens = not is_own(credentials(data_dir).get("host", LOOPBACK))
    return listens or not is_loopback(address_of(data_dir))


def is_own(host: str) -> bool:
    """True of an address that this machine alone reaches."""
    return host == "localhost" or host.startswith("127.")


def public(url: str) -> str:
    """The address at which people open our server. Raises ServerError where browsers could not work with it."""
    found, expected = repr(url), EXPECTED
    try:
        address = "" if has_password(url) else clean(url)
    except ValueError as error:
        address, expected = "", str(error)
    if has_password(url):
        found = "a name or password before the host"
    if address and urlsplit(address).path:
        address, expected = "", "a host name of its own: Label Studio's pages do not work below a path"
    if not address:
        next_step = "trueup labelstudio start --public-url https://labels.example.org"
        raise ServerError("--public-url", found=found, expected=expected, next_step=next_step)
    return address


def told(known: dict[str, str], port: int, host: str, url: str | None) -> dict[str, str]:
    """Address and host for the credentials: people are told `url`, or what was said last time.

    Without a proxy that is forgotten with another port or host, since the address was for those.
    """
    here = LOOPBACK if is_own(host) or host == EVERYWHERE else host
    name = socket.gethostname() if host == EVERYWHERE else here
    before = known.get("address", "")
    same = known.get("host") == host and known.get("url", "").endswith(f":{port}")
    kept = before if same or before.startswith("https:") else ""
    return {
        "url": f"http://{here}:{port}",
        "host": host,
        "address": url or kept or f"http://{name}:{port}",
    }


def refuse_taken(port: int, host: str) -> None:
    """Raises ServerError where our server could not listen there."""
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
