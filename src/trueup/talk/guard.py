"""Who may ask the server: a key where there is one, and no web page of another site, by whatever name it reaches us."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from trueup.talk.asked import BadRequest

KEY = "TRUEUP_API_KEY"  # the environment variable that holds the key
MAX_BODY = 1_000_000  # bytes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Refuses, before anything of a request is read, what `fault` names, and bodies of more than MAX_BODY bytes."""

    def __init__(self, app: App, *, key: str | None, loopback: bool) -> None:
        """`loopback`: the server listens on this machine alone, so that every honest request names it so."""
        self.app, self.key, self.loopback = app, key, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if (refused := self.fault(scope["method"], headers)) is not None:
            await answer(send, refused)
            return
        num_bytes = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY:
                raise _too_large()
            return message

        await self.app(scope, counted, send)

    def fault(self, method: str, headers: dict[str, str]) -> BadRequest | None:
        """Why a request is refused by its headers alone (names in lower case); None where it is not."""
        if self.loopback and not is_loopback(_host(headers.get("host", ""))):
            # a page of another site whose name was made to lead here has that name in its requests
            return BadRequest("the Host header names another machine", status=403, code="wrong_host")
        if (origin := headers.get("origin")) is not None and origin.partition("://")[2] != headers.get("host"):
            return BadRequest("requests of web pages of other sites are refused", status=403, code="wrong_origin")
        if self.key is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self.key.encode())
            if scheme.lower() != "bearer" or not same:
                return BadRequest(
                    f"the key is missing or wrong: send the value of {KEY} as Authorization: Bearer KEY",
                    status=401,
                    code="invalid_api_key",
                )
        if method == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                # what a page may send to any site without asking is of other types
                return BadRequest("expected Content-Type: application/json", status=415, code="wrong_content_type")
            length = headers.get("content-length", "0")
            if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY:
                return _too_large()
        return None


def _too_large() -> BadRequest:
    return BadRequest(f"the body is larger than {MAX_BODY:,} bytes", status=413, code="body_too_large")


def _host(header: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """True of localhost and of addresses of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def answer(send: Send, refused: BadRequest) -> None:
    """Send a refusal as OpenAI writes it."""
    body = json.dumps(refused.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
