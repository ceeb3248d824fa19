"""A server of a tiny run with several adapters, in a thread of this process, for the official client to ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from openai import OpenAI

from trueup.feedback.use import Use
from trueup.run.pipeline import Pipeline
from trueup.talk.answers import How
from trueup.talk.listen import bind
from trueup.talk.roster import roster
from trueup.talk.server import Server, app
from trueup.talk.speaker import Speaker

DEFAULTS = How(temperature=0.0, top_p=1.0, max_tokens=12, seed=0)


@dataclass
class Served:
    """A running server, and what it logged."""

    url: str
    run: Pipeline
    server: Server
    lines: list[str]
    faults: list[Exception]

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="not needed", max_retries=0, timeout=60)

    @property
    def store(self) -> Path:
        return self.run.folder / "store"


@contextmanager
def serving(
    run: Pipeline, *, key: str | None = None, speaker: Speaker | None = None, best_of: int = 0
) -> Iterator[Served]:
    """The models of `run`, served on a free port until the block ends."""
    lines: list[str] = []
    faults: list[Exception] = []
    speaker = speaker or Speaker(run, roster(run))
    made = Server(speaker, Use(run.folder / "store"), DEFAULTS, lines.append, faults.append, best_of=best_of)
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    config = uvicorn.Config(app(made, key=key, loopback=True), log_level="warning", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    began = time.monotonic()
    while not running.started and time.monotonic() - began < 30:
        time.sleep(0.01)
    try:
        yield Served(f"http://127.0.0.1:{port}", run, made, lines, faults)
    finally:
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
