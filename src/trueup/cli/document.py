"""`--json`: one JSON document on standard output, and all that a person would read on standard error."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import click

from trueup.cli.group import DOCUMENT, filled
from trueup.errors import TrueupError
from trueup.run.stage import Waiting

OPTION = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document; everything else goes to standard error."
)


def tell(**figures: Any) -> None:
    """Add `figures` (JSON values) to the document of the command that runs. Without --json they go nowhere."""
    _document().update(figures)


def with_json(function: Callable[..., None]) -> Callable[..., None]:
    """A command with --json. The document holds what the command `tell`s, and what ended it: `error` or `waiting`.

    The exit codes are those without --json.
    """

    @OPTION
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **values: Any) -> None:
        if not as_json:
            function(*args, **values)
            return
        click.get_current_context().meta[DOCUMENT] = {}
        with _apart() as out:
            try:
                function(*args, **values)
            except Waiting as waiting:
                tell(waiting={"labelled": waiting.labelled, "wanted": waiting.wanted, "address": waiting.address})
                raise
            except TrueupError as error:
                parts = ("where", "found", "expected", "next_step")
                tell(error={"kind": type(error).__name__, **{part: filled(getattr(error, part)) for part in parts}})
                raise
            except Exception as error:
                tell(error={"kind": type(error).__name__, "found": str(error)})
                raise
            finally:
                out.write(json.dumps(_document(), indent=2, default=str) + "\n")

    return command


def _document() -> dict[str, Any]:
    found: dict[str, Any] = click.get_current_context().meta.get(DOCUMENT, {})
    return found


@contextlib.contextmanager
def _apart() -> Iterator[TextIO]:
    """Yields standard output; within it, whatever Python, a library in C or a child process prints goes to standard
    error instead."""
    out = sys.stdout
    out.flush()
    try:
        number = out.fileno()
        kept = os.dup(number)
    except (OSError, ValueError):  # a test's, in memory
        with contextlib.redirect_stdout(sys.stderr):
            yield out
        return
    os.dup2(sys.stderr.fileno(), number)
    try:
        with os.fdopen(kept, "w", encoding="utf-8", closefd=False) as alone, contextlib.redirect_stdout(sys.stderr):
            yield alone
    finally:
        os.dup2(kept, number)
        os.close(kept)
