"""Progress on standard error, with time left, for whatever takes long; in a pipe, nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from trueup import rank

Item = TypeVar("Item")


def bars(title: str, *, speed_of_last_s: float = 30) -> Any:
    """A rich progress bar: what is done, counts, time gone and time left.

    Time left is what the speed of the last `speed_of_last_s` seconds gives.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn(f"{title:9} {{task.description:22}}"), BarColumn(24), MofNCompleteColumn())
    return _progress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), speed_estimate_period=speed_of_last_s
    )


def track(title: str, what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield `items`, of which there are `total`, under a bar."""
    with bars(title) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)


@contextmanager
def parts(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar over `total` parts, which may take unequally long; call what it yields as each begins, with its name."""
    with bars(title, speed_of_last_s=3600) as bar:
        task, begun = bar.add_task("", total=total), iter(range(total + 1))
        yield lambda text: bar.update(task, completed=next(begun, total), description=text)
        bar.update(task, completed=total)


@contextmanager
def spinner(title: str) -> Iterator[Callable[[str], None]]:
    """A turning line with the time gone, for what nobody can foresee; call what it yields to change the words."""
    from rich.markup import escape
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with _progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as line:
        task = line.add_task(title, total=None)
        yield lambda text: line.update(task, description=escape(text))


def _progress(*columns: Any, **options: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, quiet=not rank.is_first())
    disable = not console.is_terminal or console.quiet
    return Progress(*columns, console=console, disable=disable, redirect_stdout=sys.stdout.isatty(), **options)
