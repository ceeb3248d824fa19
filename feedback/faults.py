"""What a failed request to Label Studio means, in one message each: what came back, and what to do."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import httpx

from trueup.errors import ServerError

BUSY = (429, 502, 503, 504)
LONGEST_WAIT_S = 30.0  # that a server may ask for before the next request
MAX_SHOWN = 300  # characters of what a server said
AGAIN = "run the same command again: what has arrived is found there, and is not sent twice"

NEXT = {
    400: "read the server's log",
    401: "set LABEL_STUDIO_API_KEY to a token of this server (Account & Settings > Access Token)",
    403: "ask the server's administrator what this token may do, and whether a proxy stands before the server",
    404: "correct labelstudio.url; or, to publish a deleted project anew (labels already pulled are kept), remove "
    "projects.json in the run's store folder",
    413: "raise the body size that the proxy before the server takes (nginx: client_max_body_size)",
    414: "raise the length of addresses that the proxy before the server takes (nginx: large_client_header_buffers)",
    500: f"read the server's log, then {AGAIN}",
} | dict.fromkeys(BUSY, f"the server, or a proxy before it, is busy or starts: wait a minute, then {AGAIN}")
SAID = {401: "the token is refused", 404: "it is not there (deleted, or no Label Studio?)"}


class RequestError(ServerError):
    """A request failed. `status` is 0 where nothing answered; `passing` where the same request may work later."""

    def __init__(
        self,
        where: str,
        *,
        found: str,
        expected: str = "",
        next_step: str = "",
        status: int = 0,
        cut: bool = False,
        wait_s: float | None = None,
    ) -> None:
        """`cut` where the answer ended too early; `wait_s` is how long the server asks to be left alone."""
        super().__init__(where, found=found, expected=expected, next_step=next_step)
        self.status, self.passing, self.wait_s = status, cut or status in (0, *BUSY), wait_s


def refused(where: str) -> RequestError:
    """The error of a token that the server does not take."""
    return RequestError(where, found=SAID[401], next_step=NEXT[401], status=401)


def no_answer(where: str, error: httpx.HTTPError) -> RequestError:
    """The error of a request that nothing answered."""
    said = str(error)
    if "CERTIFICATE" in said:
        return RequestError(
            where,
            found="its certificate is not trusted here",
            next_step="set SSL_CERT_FILE to a file with its authority, or correct labelstudio.url",
            status=495,
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
        next_step = "trueup labelstudio start, or correct labelstudio.url"
    elif isinstance(error, httpx.TimeoutException):
        next_step = f"look what keeps the server busy (its load, its log), then {AGAIN}"
    else:
        next_step = AGAIN
    found = f"no answer ({type(error).__name__}{': ' + short(said) if said else ''})"
    return RequestError(where, found=found, next_step=next_step)


def unexpected(where: str, found: Any, expected: str) -> RequestError:
    """The error of an answer that is JSON, and not what Label Studio says."""
    return RequestError(
        where,
        found=f"an answer that is not Label Studio's: {short(json.dumps(found))}",
        expected=expected,
        next_step="correct labelstudio.url, or read the server's log",
        status=200,
    )


def body_of(answer: httpx.Response, where: str) -> Any:
    """The JSON of an answer. Raises RequestError where it is a failure, a redirect, or no JSON."""
    status, kind = answer.status_code, answer.headers.get("content-type", "")
    if answer.is_redirect or 300 <= status < 400:
        target = urlsplit(answer.headers.get("location", ""))
        to = f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else target.path
        raise RequestError(
            where,
            found=f"status {status}, a redirect to {short(to) or 'nowhere'}",
            expected="Label Studio's own answer",
            next_step="set labelstudio.url to the address that answers itself; if that is a single sign-on, ask its "
            "administrator to let requests to /api with a token pass",
            status=status,
        )
    if answer.is_success:
        try:
            return answer.json() if answer.content else None
        except (ValueError, RecursionError):
            if "json" in kind and not answer.text.lstrip().startswith("<"):
                raise _cut(answer, where) from None
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
        wait_s=_asked_to_wait(answer),
    )


def _cut(answer: httpx.Response, where: str) -> RequestError:
    return RequestError(
        where,
        found=f"status {answer.status_code}, and {len(answer.content):,} bytes that are no whole JSON",
        expected="Label Studio's own answer, whole",
        next_step=f"{AGAIN}; if that does not help, set labelstudio.url to the address of Label Studio itself",
        status=answer.status_code,
        cut=True,
    )


def _asked_to_wait(answer: httpx.Response) -> float | None:
    said = answer.headers.get("retry-after", "").strip()
    return min(float(said), LONGEST_WAIT_S) if said.isdecimal() else None


def _page(answer: httpx.Response, kind: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", answer.text[:100_000], re.IGNORECASE | re.DOTALL)
    what = "an HTML page" if title or "html" in kind else f"text ({short(kind)})" if kind else "something else"
    return f"{what}, {short(title.group(1))!r}" if title and title.group(1).strip() else what


def _reason(answer: httpx.Response) -> str:
    """What a server says of a fault, where it says it in JSON."""
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    return short(json.dumps(said.get("validation_errors") or said.get("detail") or ""))


def short(text: str) -> str:
    """A text of a server's in one line that fits into a message."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= MAX_SHOWN else plain[: MAX_SHOWN - 3] + "..."
