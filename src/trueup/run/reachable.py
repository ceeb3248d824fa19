"""Is the hub there? Asked once and briefly, before a library asks it file by file, each with retries for a minute."""

from __future__ import annotations

import functools
import threading

LIMIT_S = 4.0  # to look the hub's name up, to connect and to get any answer


@functools.cache
def is_reachable() -> bool:
    """True when the hub gives any answer, through a proxy where one is set, within LIMIT_S."""
    answered = threading.Event()
    asking = threading.Thread(target=_ask, args=(answered,), daemon=True)  # a look-up of a name has no time limit
    asking.start()
    asking.join(LIMIT_S)
    return answered.is_set()


def _ask(answered: threading.Event) -> None:
    import httpx
    from huggingface_hub import constants

    try:
        httpx.head(constants.ENDPOINT, timeout=LIMIT_S)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return
    answered.set()
