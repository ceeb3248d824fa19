"""One progress line for whatever takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def bars(title: str) -> Any:
    """A rich progress bar on standard error: what is done, counts, time gone and time left. In a pipe, nothing."""
    import sys

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(f"{title:9} {{task.description:22}}"), BarColumn(24), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    )


@contextmanager
def spinner(title: str) -> Iterator[Callable[[str], None]]:
    """A turning line on standard error; call what it yields to change the words. In a pipe, nothing."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(title) as status:
        yield lambda text: status.update(escape(text))
