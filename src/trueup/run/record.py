"""Reading a record or a plan: JSON that could be one of ours, whatever became of the file since it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trueup.run.files import read_json


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Source(_Part):
    path: str
    weight: float
    columns: dict[str, str]
    files: dict[str, str]
    lines: int | None


class _Rows(_Part):
    sha256: str
    sources: list[_Source]


class _Read(_Part):
    path: str
    sha256: str


class _Base(_Part):
    name: str
    files: dict[str, str] | None = None
    commit: str | None = None


class _Earlier(_Part):
    """What every version keeps; the rest of it is not looked at."""

    version: int = 0
    config: dict[str, Any] = {}
    adapter: dict[str, Any] = {}
    data: dict[str, str] = {}
    inputs: dict[str, str | None] = {}
    overrides: list[str] = []
    fingerprint: str = ""
    metrics: dict[str, Any] = {}


class _Record(_Earlier):
    """Since version 1."""

    data_config: dict[str, Any] = {}
    model: dict[str, Any] = {}
    given: dict[str, list[str]] = {}
    data: dict[str, _Rows] = {}  # type: ignore[assignment]
    read: dict[str, _Read] = {}
    base: _Base | None = None
    files: dict[str, str] | None = None


def read_record(path: Path) -> dict[str, Any] | None:
    """The record, or the plan, in a file; None when there is none: no file, no JSON object, or one of other values."""
    found = read_json(path)
    if found is None:
        return None
    try:
        (_Record if found.get("version") else _Earlier).model_validate(found)
    except ValidationError:
        return None
    return found
