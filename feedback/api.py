"""Requests to one Label Studio server: reads are asked again where that may help, and nothing else is."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import httpx
import stamina

from trueup.feedback.connection import Connection
from trueup.feedback.faults import RequestError, body_of, no_answer, refused, short, unexpected
from trueup.run.address import is_loopback

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

TIMEOUT_S = 60  # without a byte
ATTEMPTS = 4
TASKS = "/api/tasks/"  # where the answer is a page of tasks
FIRST_PAUSE_S = 0.25  # doubled with each attempt
# What the SDK's models raise of an answer whose shape they take for granted, and httpx of an address that is none.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)

logging.getLogger("stamina").addHandler(logging.NullHandler())  # it would write each attempt to the terminal


def attempts(answers: tuple[int, ...] = (), *, first_pause_s: float = FIRST_PAUSE_S) -> Iterable[stamina.Attempt]:
    """Contexts for something that may be done again: after a RequestError that may pass, a pause and the next one.

    The last one lets the error through. A failure with one of the statuses `answers` is what was asked for.
    """

    def passes(error: Exception) -> bool | float:
        if not isinstance(error, RequestError) or error.status in answers:
            return False
        return (error.passing or error.status == 500) if error.wait_s is None else error.wait_s

    return stamina.retry_context(passes, attempts=ATTEMPTS, wait_initial=first_pause_s, wait_jitter=0)


class _KeptError(Exception):
    """Ends a request whose answer is kept as it arrived: the SDK would make objects of tasks, which nobody reads."""


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
            answer.stream = httpx.ByteStream(b"")  # else both refer to each other, and a page stays in memory for long
            last.answer = answer
            if answer.request.method == "GET" and answer.request.url.path.endswith(TASKS):
                raise _KeptError

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

    def get(self, doing: str, call: Callable[[LabelStudio], object], answers: tuple[int, ...] = ()) -> Any:
        """The JSON that the server answers to `call`, which may be made several times. Raises RequestError.

        The statuses `answers` are not asked about again.
        """
        for attempt in attempts(answers):
            with attempt:
                return self.send(doing, call)
        raise AssertionError

    def send(self, doing: str, call: Callable[[LabelStudio], object]) -> Any:
        """The JSON that the server answers to `call`, one request of the SDK's, sent once. Raises RequestError."""
        where = f"Label Studio, {self.url}, {doing}"
        answer, readable = self._answer(where, call)
        if answer.status_code == 401 and answer.request.headers.get("authorization", "").startswith("Bearer "):
            self.__dict__.pop("_sdk", None)  # what the token was traded for ran out early: a new client trades it again
            answer, readable = self._answer(where, call)
        body = body_of(answer, where)
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
            raise refused(where) from None
        try:
            call(sdk)
        except _KeptError:
            pass
        except httpx.HTTPError as error:
            raise no_answer(where, error) from None
        except ApiError:  # an answer, or what a token was traded for does not say when it runs out
            if self._last.answer is None:
                raise refused(where) from None
        except (httpx.InvalidURL, *UNREADABLE) as error:
            readable = False
            if self._last.answer is None:
                found = f"no address ({short(str(error))})"
                raise RequestError(where, found=found, next_step="correct labelstudio.url", status=400) from None
        return self._last.answer, readable
