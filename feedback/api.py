"""One Label Studio server over HTTP: JSON in, JSON out, and every way in which that fails in one clear message."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from trueup.errors import ServerError
from trueup.feedback.connection import Connection
from trueup.run.address import is_loopback

TIMEOUT_S = 60
PAUSES_S = (0.5, 1.0, 2.0)  # before asking again, where asking twice does no harm
BUSY = (429, 502, 503, 504)
MAX_SHOWN = 300  # characters of what a server said

NEXT = {
    400: "read the server's log",
    401: "set LABEL_STUDIO_API_KEY to a token of this server (Account & Settings > Access Token)",
    403: "ask the server's administrator what this token may do, and whether a proxy stands before the server",
    404: "correct labelstudio.url; or, to publish a deleted project anew (labels already pulled are kept), remove "
    "projects.json in the run's store folder",
    413: "raise the body size that the proxy before the server takes (nginx: client_max_body_size)",
    414: "raise the length of addresses that the proxy before the server takes (nginx: large_client_header_buffers)",
}
SAID = {401: "the token is refused", 404: "it is not there (deleted, or no Label Studio?)"}


class RequestError(ServerError):
    """A request failed. `status` is 0 where nothing answered; `passing` where the same request may work later."""

    def __init__(self, where: str, *, found: str, expected: str = "", next_step: str = "", status: int = 0) -> None:
        super().__init__(where, found=found, expected=expected, next_step=next_step)
        self.status, self.passing = status, status in (0, *BUSY)


class Api:
    """Requests to one server. The token travels to that address alone: no redirect is followed.

    Proxies of the environment are used for other machines only, as a browser would.
    """

    def __init__(self, connection: Connection) -> None:
        self.url, self._token = connection.url, connection.token
        self._bearer = ""  # what a personal access token was traded for
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=not is_loopback(connection.url))

    def get(self, path: str, doing: str, **query: Any) -> Any:
        """The JSON of a GET, asked again a few times while the server is busy. Raises RequestError."""
        for pause in (*PAUSES_S, None):
            try:
                return self._json("GET", path, doing, params=query)
            except RequestError as error:
                if pause is None or error.status not in BUSY:
                    raise
                time.sleep(pause)
        raise AssertionError

    def send(self, method: str, path: str, doing: str, body: Any, **query: Any) -> Any:
        """The JSON of a POST or PATCH of `body`, sent once. Raises RequestError."""
        return self._json(method, path, doing, params=query, json=body)

    def _json(self, method: str, path: str, doing: str, **parts: Any) -> Any:
        where = f"Label Studio, {self.url}, {doing}"
        answer = self._answer(where, method, path, **parts)
        if answer.status_code == 401 and self._bearer:  # it lasts five minutes
            self._bearer = ""
            answer = self._answer(where, method, path, **parts)
        return _body(answer, where)

    def _answer(self, where: str, method: str, path: str, **parts: Any) -> httpx.Response:
        scheme, token = "Token", self._token
        if token.count(".") == 2:  # a personal access token is a JWT, which a legacy token is not
            self._bearer = self._bearer or self._trade(where, token)
            scheme, token = "Bearer", self._bearer
        return self._ask(where, method, path, headers={"Authorization": f"{scheme} {token}"}, **parts)

    def _trade(self, where: str, token: str) -> str:
        """The token that a personal access token gives for five minutes."""
        answer = self._ask(where, "POST", "/api/token/refresh/", json={"refresh": token})
        if answer.status_code in (401, 403):
            raise RequestError(where, found=SAID[401], next_step=NEXT[401], status=401)
        found = _body(answer, where)
        bearer = found.get("access") if isinstance(found, dict) else None
        if not isinstance(bearer, str) or not bearer.isascii() or not bearer.isprintable():
            raise unexpected(where, found, "an access token")
        return bearer

    def _ask(self, where: str, method: str, path: str, **parts: Any) -> httpx.Response:
        try:
            return self._http.request(method, self.url + path, **parts)
        except httpx.HTTPError as error:
            said = str(error)
            if "CERTIFICATE" in said:
                raise RequestError(
                    where,
                    found="its certificate is not trusted here",
                    next_step="set SSL_CERT_FILE to a file with its authority, or correct labelstudio.url",
                    status=495,
                ) from None
            raise RequestError(
                where,
                found=f"no answer ({type(error).__name__}{': ' + _short(said) if said else ''})",
                next_step="trueup labelstudio start, or correct labelstudio.url",
            ) from None
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise RequestError(
                where, found=f"no address ({_short(str(error))})", next_step="correct labelstudio.url", status=400
            ) from None


def unexpected(where: str, found: Any, expected: str) -> RequestError:
    """The error of an answer that is JSON, and not what Label Studio says."""
    return RequestError(
        where,
        found=f"an answer that is not Label Studio's: {_short(json.dumps(found))}",
        expected=expected,
        next_step="correct labelstudio.url, or read the server's log",
        status=200,
    )


def _body(answer: httpx.Response, where: str) -> Any:
    status, kind = answer.status_code, answer.headers.get("content-type", "")
    if answer.is_redirect or 300 <= status < 400:
        target = urlsplit(answer.headers.get("location", ""))
        to = f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else target.path
        raise RequestError(
            where,
            found=f"status {status}, a redirect to {_short(to) or 'nowhere'}",
            expected="Label Studio's own answer",
            next_step="set labelstudio.url to the address that answers itself; if that is a single sign-on, ask its "
            "administrator to let requests to /api with a token pass",
            status=status,
        )
    if answer.is_success:
        try:
            return answer.json() if answer.content else None
        except (ValueError, RecursionError):
            raise RequestError(
                where,
                found=f"status {status}, and no JSON but {_page(answer, kind)}",
                expected="Label Studio's own answer",
                next_step="set labelstudio.url to the address of Label Studio itself; if this is a login page, ask its "
                "administrator to let requests to /api with a token pass",
                status=status,
            ) from None
    found = SAID.get(status) or f"status {status}"
    reason = _reason(answer) if status not in SAID else ""
    raise RequestError(
        where,
        found=f"{found}: {reason}" if reason else found,
        next_step=NEXT.get(status, "read the server's log"),
        status=status,
    )


def _page(answer: httpx.Response, kind: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", answer.text[:100_000], re.IGNORECASE | re.DOTALL)
    what = "an HTML page" if title or "html" in kind else f"text ({_short(kind)})" if kind else "something else"
    return f"{what}, {_short(title.group(1))!r}" if title and title.group(1).strip() else what


def _reason(answer: httpx.Response) -> str:
    """What a server says of a fault, where it says it in JSON."""
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    return _short(json.dumps(said.get("validation_errors") or said.get("detail") or ""))


def _short(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= MAX_SHOWN else plain[: MAX_SHOWN - 3] + "..."
