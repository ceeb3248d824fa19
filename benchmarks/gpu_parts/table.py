"""The table of docs/gpu.md: each aim, and beside it what was measured on such a card, or "not measured"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NOT_MEASURED = "not measured"
A100_CLASS = r"A100|H100|H200|A800|H800|B200|GH200"


@dataclass(frozen=True)
class Row:
    """A figure that is aimed at. `card`: a pattern of names of cards; `path`: where the figure is in a line of results.

    `unit` follows the figure; `least`: at least the aim, else at most.
    """

    what: str
    card: str
    shown: str
    aim: float
    part: str
    path: tuple[str, ...]
    unit: str
    least: bool = True


def _memory(what: str, part: str, aim: float) -> Row:
    path = ("ours", "peak_tensors_gb")
    return Row(f"{what}, peak of tensors", ".", "any", aim, part, path, " GB", least=False)


SAMPLING = ("ours", "auto", "tokens_per_s_32")
ROWS = (
    Row("SFT of a 7B, against plain TRL", A100_CLASS, "A100 class", 1.8, "sft", ("ratio",), "x"),
    Row("SFT of a 7B, against plain TRL", r"\bT4\b", "T4", 1.5, "sft", ("ratio",), "x"),
    Row("DPO of a 7B, against plain TRL", A100_CLASS, "A100 class", 1.8, "dpo", ("ratio",), "x"),
    Row("DPO of a 7B, against plain TRL", r"\bT4\b", "T4", 1.5, "dpo", ("ratio",), "x"),
    Row("sampling from a 7B, batch of 32", r"\bT4\b", "T4", 1000, "sample", SAMPLING, " tokens/s"),
    Row("sampling from a 7B, batch of 32", r"\b4090\b", "RTX 4090", 3000, "sample", SAMPLING, " tokens/s"),
    Row("sampling from a 7B, batch of 32", r"H100|H200|GH200", "H100", 8000, "sample", SAMPLING, " tokens/s"),
    _memory("SFT of a 7B, 2 x 1,024 tokens", "sft", 5.9),
    _memory("DPO of a 7B, a pair of 1,024 tokens", "dpo", 6.1),
    _memory("SFT of a 7B as on a T4, fp16", "t4_sft", 5.9),
)


def write(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Fill the table of `page` from every folder in `results`."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{rendered(lines(results))}{END}{after}", encoding="utf-8")


def lines(results: Path) -> list[dict[str, Any]]:
    """Every line of results of a 7B on a real GPU, the newest last."""
    found = [
        json.loads(line)
        for file in sorted(results.glob("*/results.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    real = [line for line in found if line.get("shape") == "7b" and not line.get("emulated")]
    return [line for line in real if line.get("device") not in (None, "cpu")]


def rendered(found: Iterable[dict[str, Any]]) -> str:
    """The table as Markdown."""
    found = list(found)
    rows = ["| what | card | aim | measured | on, date, commit |", "|---|---|---|---|---|"]
    for row in ROWS:
        line, value = _newest(row, found)
        aim = f"{'at least' if row.least else 'at most'} {row.aim:,g}{row.unit}"
        measured = NOT_MEASURED if value is None else f"{value:,.4g}{row.unit}"
        where = "" if line is None else f"{line['device']}, {line['date']}, {line['commit']}"
        rows.append(f"| {row.what} | {row.shown} | {aim} | {measured} | {where} |")
    return "\n".join(rows) + "\n"


def _newest(row: Row, found: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, float | None]:
    """The last line that holds the figure, on a card of the row; and the figure."""
    for line in reversed(found):
        if line["part"] == row.part and re.search(row.card, str(line["device"])):
            value: Any = line
            for key in row.path:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, int | float):
                return line, float(value)
    return None, None
