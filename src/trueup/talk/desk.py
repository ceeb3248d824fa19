"""Requests in a queue before one model: asked for in an event loop, answered in one thread, in the order of asking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from trueup.talk.asked import BadRequest
from trueup.talk.speaker import Gone

MOST_WAITING = 32  # requests
Result = TypeVar("Result")
Piece = tuple[int, str]  # (which answer, the next piece of its text)
Work = Callable[[Callable[[int, str], None], Callable[[], bool]], Result]  # (heard, gone) -> what it makes


class Desk:
    """Does work one piece at a time. `close` ends what is being done, and what waits."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "speaker")
        self._waiting = 0
        self._closed = threading.Event()

    async def do(self, work: Work[Result]) -> AsyncIterator[Piece | Result]:
        """The pieces that `work` tells of, as they come, and at last what it makes; raises what it raises.

        Whoever stops listening ends the work. Raises BadRequest, with status 429, where too many wait.
        """
        if self._waiting >= MOST_WAITING:
            raise BadRequest(f"{MOST_WAITING} requests wait already: try again later", status=429, code="queue_full")
        loop, told, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def tell(kind: str, value: Any) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(told.put_nowait, (kind, value))

        def is_gone() -> bool:
            return gone.is_set() or self._closed.is_set()

        def run() -> None:
            try:
                if is_gone():
                    raise Gone
                tell("made", work(lambda which, piece: tell("piece", (which, piece)), is_gone))
            except BaseException as error:  # whatever it is, who asked has to hear of it
                tell("failed", error)

        self._waiting += 1
        try:
            self._thread.submit(run)
            while True:
                kind, value = await told.get()
                if kind == "failed":
                    raise value
                yield value
                if kind == "made":
                    return
        finally:
            self._waiting -= 1
            gone.set()

    def close(self) -> None:
        """End what is being done, at its next token."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
