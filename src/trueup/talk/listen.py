"""Where the server listens: its port is taken before a model is loaded, and other machines need a key."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from trueup.errors import PortTakenError, ServerError
from trueup.talk.guard import KEY, is_loopback

PATIENCE_S = 3  # for requests at work, once the server is told to stop


def key_for(host: str) -> str | None:
    """The key that requests have to send, from the environment; None where none is needed.

    Raises ServerError when others could reach the server and there is no key.
    """
    key = os.environ.get(KEY) or None
    if key is None and not is_loopback(host):
        raise ServerError(
            f"--host {host}",
            found=f"other machines would reach the server, and {KEY} is not set",
            expected="a key that they have to send",
            next_step=f'export {KEY}="$(openssl rand -hex 24)", then repeat the command; or leave out --host',
        )
    return key


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises PortTakenError, and ServerError where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except BaseException:
            listening.close()
            raise
    except socket.gaierror as error:
        raise ServerError(
            f"--host {host}",
            found=f"no such host ({error.strerror})",
            expected="127.0.0.1, or an address of this machine",
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            another = port + 1 if port < 65535 else port - 1
            raise PortTakenError(
                f"{host}:{port}", found="the port is taken", next_step=f"trueup serve RUN.yaml --port {another}"
            ) from None
        raise ServerError(
            f"{host}:{port}",
            found=error.strerror or str(error),
            expected="an address of this machine",
            next_step="trueup serve RUN.yaml",
        ) from None
    return listening


def url(host: str, port: int) -> str:
    """The address that clients are given."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(application: Any, listening: socket.socket) -> None:
    """Answer requests until the process is told to stop."""
    import uvicorn

    config = uvicorn.Config(
        application,
        log_level="warning",  # an access log would repeat what clients send
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=PATIENCE_S,
    )
    uvicorn.Server(config).run(sockets=[listening])
