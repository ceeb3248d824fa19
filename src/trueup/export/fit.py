"""The adapter that serves on the 16-bit base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.errors import ConfigError


def write(model: Any, adapter: Path, out: Path, rank: int | None) -> dict[str, float]:
    """Write it into `out`."""
    raise ConfigError("export.adapter_for", found="16bit is not there yet", next_step="leave adapter_for out")
