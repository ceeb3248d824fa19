"""Rows of a data set of the hub, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueup.errors import DataError
from trueup.run.reachable import is_reachable

HUB = "hub:"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.\[\]:%+-]+)?", re.ASCII)
EXPECTED = "hub:owner/name or hub:owner/name:split"


def rows(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of `hub:owner/name` or `hub:owner/name:split`.

    Raises DataError when the name is none of the hub, when nothing can be fetched, and when the stream breaks off.
    """
    if not NAME.fullmatch(name.removeprefix(HUB)):
        raise DataError(
            name, found="no name of a data set of the hub", expected=EXPECTED, next_step="correct it, or name a file"
        )
    identifier, _, split = name.removeprefix(HUB).partition(":")
    if Path(identifier).exists():  # datasets would read it instead
        raise DataError(
            name,
            found=f"{identifier} is also a folder here, which would be read in place of the hub's",
            next_step=f"name the folder without {HUB}, or start from another working folder",
        )
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise _away(name, "HF_HUB_OFFLINE forbids asking the hub", "unset HF_HUB_OFFLINE")
    if not is_reachable():
        away = f"the hub at {constants.ENDPOINT} does not answer"
        raise _away(name, away, "check the connection (HTTPS_PROXY, HF_ENDPOINT)")
    import datasets

    try:
        found = iter(datasets.load_dataset(identifier, split=split or "train", streaming=True))
    except Exception as error:  # the hub's client raises errors of many libraries
        raise DataError(
            name,
            found=f"cannot be fetched: {_said(error)}",
            expected=EXPECTED,
            next_step="correct the name; or download the files and name their folder",
        ) from error
    number = 0
    while True:
        try:
            row = next(found, None)
        except Exception as error:
            raise DataError(
                name,
                found=f"the stream broke off after {number:,} rows: {_said(error)}",
                next_step="try again; or download the files and name their folder",
            ) from error
        if row is None:
            return
        number += 1
        yield number, {str(key): _plain(value) for key, value in row.items()}


def _away(name: str, found: str, cure: str) -> DataError:
    return DataError(name, found=found, next_step=f"{cure}; or download the files elsewhere and name their folder")


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _plain(value: Any) -> Any:
    """numpy's arrays and scalars as Python's lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
