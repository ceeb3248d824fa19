"""From what the parts kept to CSV, Markdown tables, a picture, and the figures as one object.

An interval is Student's t, 95 %, over seeds or runs; a gain is the difference from the first way on the same seed.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Row = dict[str, Any]
Interval = tuple[float, float, float]  # mean, low, high
Table = dict[str, dict[str, dict[str, Any]]]  # line -> column -> {"accuracy", "gain" | "share": Interval}


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % interval by Student's t; of one value, no interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def rows_of(out: Path, part: str) -> list[Row]:
    """All rows that a part kept, also written as CSV."""
    kept = out / f"{part}.jsonl"
    found = [row for line in kept.read_text().splitlines() for row in json.loads(line)["rows"]] if kept.exists() else []
    if found:
        with (out / f"{part}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in found for name in row)))
            writer.writeheader()
            writer.writerows(found)
    return found


def of_noise(rows: list[Row], mood: float) -> Table:
    """By way and design, accuracy, and the share of the gain over 50 % that clean labels give on the same seed."""
    rows = [row for row in rows if row["mood"] == mood]
    clean = {row["seed"]: row["accuracy"] - 0.5 for row in rows if row["way"] == "clean labels"}
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        cell = found[row["way"]][row["design"]]
        cell["accuracy"].append(row["accuracy"])
        cell["share"].append((row["accuracy"] - 0.5) / clean[row["seed"]])
    return _table(found)


def compared(rows: list[Row], way: str, column: str, over: str) -> Table:
    """By `way` and `column`, accuracy, and its gain on the first way of the same `over` (a seed or a run)."""
    base = rows[0][way]
    draws: dict[tuple[Any, ...], list[float]] = defaultdict(list)  # several of one run count as their mean
    for row in rows:
        draws[row[way], row.get(column, ""), row[over]].append(row["accuracy"])
    known = {key: float(np.mean(some)) for key, some in draws.items()}
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (name, at, which), accuracy in known.items():
        found[name][str(at)]["accuracy"].append(accuracy)
        if (base, at, which) in known:
            found[name][str(at)]["gain"].append(accuracy - known[base, at, which])
    return _table(found)


def markdown(table: Table, what: str) -> str:
    """One line for each way, a column for each design or budget: accuracy, and `what` with its interval."""
    columns = list(dict.fromkeys(column for line in table.values() for column in line))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, line in table.items():
        cells = [_cell(line[column], what) if column in line else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(out: Path) -> dict[str, Any]:
    """Write CSV files, tables.md and labels.png into `out`; return every figure."""
    figures: dict[str, tuple[Table, str]] = {}
    if rows := rows_of(out, "noise"):
        figures |= {
            f"noise, mood {mood}": (of_noise(rows, mood), "share") for mood in sorted({r["mood"] for r in rows})
        }
    for part, way, column, over in (
        ("votes", "way", "share", "run"),
        ("selection", "order", "votes", "seed"),
        ("lora", "case", "", "run"),
    ):
        if rows := rows_of(out, part):
            figures[part] = compared(rows, way, column, over), "gain"
    text = "\n\n".join(f"## {part}\n\n{markdown(table, what)}" for part, (table, what) in figures.items())
    (out / "tables.md").write_text(text + "\n", encoding="utf-8")
    _picture({part: table for part, (table, _) in figures.items()}, out / "labels.png")
    return {part: table for part, (table, _) in figures.items()}


def _table(found: Any) -> Table:
    return {
        name: {
            column: {what: interval(values) for what, values in cell.items()} | {"n": len(cell["accuracy"])}
            for column, cell in line.items()
        }
        for name, line in found.items()
    }


def _cell(cell: dict[str, Any], what: str) -> str:
    mean, low, high = cell.get(what, cell["accuracy"])
    if cell["n"] < 2:
        return f"{cell['accuracy'][0]:.1%}"
    if what == "share":
        return f"{cell['accuracy'][0]:.1%}: {mean:.0%} ({low:.0%} to {high:.0%})"
    gain = "" if mean == low == high == 0 else f": {100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{cell['accuracy'][0]:.1%}{gain}"


def _picture(tables: dict[str, Table], path: Path) -> None:
    """Lines of accuracy by the number of labels, for the parts that have several."""
    from matplotlib.figure import Figure

    drawn = {part: tables[part] for part in ("votes", "selection") if part in tables}
    figure = Figure(figsize=(6 * max(1, len(drawn)), 4.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(drawn)), squeeze=False)[0]
    for axis, (part, table) in zip(axes, drawn.items(), strict=False):
        for name, line in table.items():
            at = [float(column) for column in line]
            means, lows, highs = zip(*(cell["accuracy"] for cell in line.values()), strict=True)
            (drawn_line,) = axis.plot(at, means, ".-", label=name)
            axis.fill_between(at, lows, highs, alpha=0.08, color=drawn_line.get_color())
        axis.set(xlabel="share of the prompts labelled" if part == "votes" else "thumbs", ylabel="accuracy in truth")
        axis.legend(frameon=False, fontsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
