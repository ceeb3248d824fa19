"""Requests to one Label Studio server, and every way in which they fail in one clear message."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from trueup.errors import ServerError
from trueup.feedback.connection import Connection
from trueup.run.address import is_loopback

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

TIMEOUT_S = 60
PAUSES_S = (0.5, 1.0, 2.0)  # before asking again, where asking twice does no harm
BUSY = (429, 502, 503, 504)
# What the SDK's models raise of an answer whose shape they take for granted, and httpx of an address that is none.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
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
    """One Label Studio server through label-studio-sdk, which makes the requests and trades personal access tokens.

    The SDK checks no answer's shape, and its errors name neither a login page nor a redirect. So each answer is kept
    as it arrived, and judged here. The token travels to the server's own address alone: no redirect is followed.
    Proxies of the environment are used for other machines only, as a browser would.
    """

    def __init__(self, connection: Connection) -> None:
        self.url, self._token = connection.url, connection.token
        self._last = last = threading.local()  # .answer: the last one in this thread

        def keep(answer: httpx.Response) -> None:
            answer.read()
            last.answer = answer

        self._http = httpx.Client(
            timeout=TIMEOUT_S,
            trust_env=not is_loopback(connection.url),
            follow_redirects=False,
            event_hooks={"response": [keep]},
        )
        weakref.finalize(self, self._http.close)  # the SDK's objects refer to each other, and so would keep it open

    @functools.cached_property
    def _sdk(self) -> LabelStudio:
        """The SDK's client, which is imported at the first request: that takes a second."""
        from label_studio_sdk import LabelStudio

        # Without the final slash, the SDK would trade tokens beside a path of the server's own. It would also ask again
        # after each 5xx; but a POST asked twice counts twice, and a 500 is an answer: that task cannot be shown.
        return LabelStudio(base_url=f"{self.url}/", api_key=self._token, httpx_client=self._http, max_retries=0)

    def get(self, doing: str, call: Callable[[LabelStudio], object]) -> Any:
        """The JSON that the server answers to `call`, asked again a few times while busy. Raises RequestError."""
        for pause in (*PAUSES_S, None):
            try:
                return self.send(doing, call)
            except RequestError as error:
                if pause is None or error.status not in BUSY:
                    raise
                time.sleep(pause)
        raise AssertionError

    def send(self, doing: str, call: Callable[[LabelStudio], object]) -> Any:
        """The JSON that the server answers to `call`, one request of the SDK's, sent once. Raises RequestError."""
        where = f"Label Studio, {self.url}, {doing}"
        answer, readable = self._answer(where, call)
        if answer.status_code == 401 and answer.request.headers.get("authorization", "").startswith("Bearer "):
            self.__dict__.pop("_sdk", None)  # what the token was traded for ran out early: a new client trades it again
            answer, readable = self._answer(where, call)
        body = _body(answer, where)
        if not readable:
            raise unexpected(where, body, "what Label Studio's API says")
        return body

    def _answer(self, where: str, call: Callable[[LabelStudio], object]) -> tuple[httpx.Response, bool]:
        """(the server's last answer to `call`, whether the SDK could read it)."""
        from label_studio_sdk.core.api_error import ApiError

        self._last.answer = None
        readable = True
        try:
            sdk = self._sdk
        except (ApiError, ArithmeticError, OSError, TypeError, ValueError):  # it reads when a token runs out
            raise _refused(where) from None
        try:
            call(sdk)
        except httpx.HTTPError as error:
            raise _no_answer(where, error) from None
        except ApiError:  # an answer, or what a token was traded for does not say when it runs out
            if self._last.answer is None:
                raise _refused(where) from None
        except (httpx.InvalidURL, *UNREADABLE) as error:
            readable = False
            if self._last.answer is None:
                found = f"no address ({_short(str(error))})"
                raise RequestError(where, found=found, next_step="correct labelstudio.url", status=400) from None
        return self._last.answer, readable


def _refused(where: str) -> RequestError:
    return RequestError(where, found=SAID[401], next_step=NEXT[401], status=401)


def _no_answer(where: str, error: httpx.HTTPError) -> RequestError:
    said = str(error)
    if "CERTIFICATE" in said:
        return RequestError(
            where,
            found="its certificate is not trusted here",
            next_step="set SSL_CERT_FILE to a file with its authority, or correct labelstudio.url",
            status=495,
        )
    return RequestError(
        where,
        found=f"no answer ({type(error).__name__}{': ' + _short(said) if said else ''})",
        next_step="trueup labelstudio start, or correct labelstudio.url",
    )


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
