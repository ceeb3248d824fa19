"""One progress line for whatever takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def bars(title: str) -> Any:
    """A rich progress bar: what is done, counts, time gone and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(f"{title:9} {{task.description:22}}"), BarColumn(24), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())


@contextmanager
def spinner(title: str) -> Iterator[Callable[[str], None]]:
    """A turning line; call what it yields to change the words."""
    from rich.console import Console
    from rich.markup import escape

    with Console().status(title) as status:
        yield lambda text: status.update(escape(text))
