"""A file of judged answers that is named outside the section `data`, and read as `data` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.data import read_preferences
from trueup.errors import DataError
from trueup.run.data_config import DataConfig, Source


def read_judged(path: Path, key: str, data: DataConfig, seed: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """What `read_preferences` gives of the file at `path`, which the run file names under `key`.

    Raises DataError under that key.
    """
    try:
        return read_preferences(data.model_copy(update={"preferences": (Source(path=path),)}), seed)
    except DataError as error:
        where = key if error.where == "data.preferences" else f"{key}: {error.where}"
        next_step = f"correct the rows of {path}" if path.exists() else "correct the path"
        raise DataError(where, found=error.found, expected=error.expected, next_step=next_step) from None
