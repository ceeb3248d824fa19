"""A proxy before a real server that fails one request in a way of the network's, and passes on all others."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LOGIN = b"<!doctype html><html><head><title>Sign in - Example</title></head><body>...</body></html>"
GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
# what -> whether the request reaches the server, status, content type, body; a status of 0 is a reset
FAULTS: dict[str, tuple[bool, int, str, bytes]] = {
    "reset before": (False, 0, "", b""),
    "reset after": (True, 0, "", b""),
    "500 before": (False, 500, "application/json", b'{"detail": "out of memory"}'),
    "500 after": (True, 500, "application/json", b'{"detail": "out of memory"}'),
    "502 before": (False, 502, "text/html", GATEWAY),
    "502 after": (True, 502, "text/html", GATEWAY),
    "429": (False, 429, "application/json", b'{"detail": "too many requests"}'),
    "cut JSON": (True, 200, "application/json", b""),  # half of the server's own body
    "cut connection": (True, 200, "application/json", b""),  # the same, with the length of the whole announced
    "login page": (False, 200, "text/html", LOGIN),
}


@dataclass
class Proxy:
    """Where it listens, what passed (method and path), and which request is to fail in which way."""

    url: str
    passed: list[tuple[str, str]] = field(default_factory=list)
    fault: str = ""
    at: int = 0  # counted from 1, and from the last `fail`
    lasting: bool = False  # each request from there on fails, too

    def fail(self, fault: str, at: int, *, lasting: bool = False) -> None:
        self.passed.clear()
        self.fault, self.at, self.lasting = fault, at, lasting


@contextmanager
def before(url: str) -> Iterator[Proxy]:
    """A proxy before the server at `url`, over plain HTTP."""
    proxy, behind, lock = Proxy(""), urlsplit(url), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                proxy.passed.append((self.command, self.path))
                number = len(proxy.passed)
            fails = bool(proxy.fault) and (number == proxy.at or (proxy.lasting and number > proxy.at))
            reaches, status, kind, text = FAULTS[proxy.fault] if fails else (True, -1, "", b"")
            if reaches:
                real = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                real.request(self.command, self.path, body, headers)
                answer = real.getresponse()
                whole = answer.read()
                real.close()
                if not fails:
                    status, kind, text = answer.status, answer.headers.get("content-type", ""), whole
                elif proxy.fault.startswith("cut"):
                    text = whole[: len(whole) // 2]
            if status == 0:
                self._reset()
                return
            self.send_response(status)
            self.send_header("content-type", kind)
            cut = fails and proxy.fault == "cut connection"
            self.send_header("content-length", str(len(whole) if cut else len(text)))
            self.end_headers()
            self.wfile.write(text)
            if cut:
                self._reset()

        def _reset(self) -> None:
            """Close so that the other side reads a reset, not an end."""
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """Of connections that were reset: on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
