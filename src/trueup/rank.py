"""Which of several processes this is. Free of torch: whatever prints asks here."""

from __future__ import annotations

import os
import sys

from trueup.errors import StageError

PATIENCE_S = 3  # in which the first rank says what is wrong; the launcher then ends the others
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # what a launcher sets


def count() -> int:
    """How many ranks there are."""
    return _number("WORLD_SIZE", 1)


def this() -> int:
    """The number of this rank, from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def is_first() -> bool:
    """Whether this is rank 0, which is true of a process that is alone."""
    return this() == 0


def _number(name: str, otherwise: int) -> int:
    written = os.environ.get(name, "")
    if written and not written.isdigit():
        raise StageError(
            name, found=repr(written), expected="a whole number", next_step="use torchrun or accelerate launch"
        )
    return int(written or otherwise)


def alone() -> None:
    """For commands that one process does: the other ranks end here, and the first forgets that there are any."""
    if not is_first():
        sys.exit(0)
    for name in LAUNCHED:
        os.environ.pop(name, None)


def quiet() -> None:
    """Ranks other than the first write nothing to standard output and warn of nothing; their errors are still seen."""
    if not is_first():
        import warnings

        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
