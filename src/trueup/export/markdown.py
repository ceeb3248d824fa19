"""Text of models, people and files inside Markdown: shown as it is, never read as markup."""

from __future__ import annotations

import re

SPECIAL = re.compile(r"([\\`*_{}\[\]|~$])")


def escape(text: str) -> str:
    """`text` on one line, with every character escaped that Markdown or HTML would read as more than itself there."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return SPECIAL.sub(r"\\\1", line)


def code(text: str) -> str:
    """`text` on one line as a code span, whatever backticks it holds."""
    line = " ".join(text.split())
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """`text` as a fenced block whose fence is longer than any inside."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
