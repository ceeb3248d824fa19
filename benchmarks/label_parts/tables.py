"""From what the parts kept to CSV, tables in Markdown, pictures, and the figures as one object."""

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


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): the 95 % interval of Student's t over seeds or runs."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def rows_of(out: Path, part: str) -> list[Row]:
    """All rows that a part kept, also written as CSV."""
    kept = out / f"{part}.jsonl"
    found = [row for line in kept.read_text().splitlines() for row in json.loads(line)["rows"]] if kept.exists() else []
    if found:
        with (out / f"{part}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
    return found


def of_noise(rows: list[Row]) -> dict[str, Any]:
    """By mood, design and way: accuracy, and the share of the gain over 50 % that clean labels give, of each seed."""
    clean = {(r["mood"], r["seed"]): r["accuracy"] - 0.5 for r in rows if r["way"] == "clean labels"}
    by: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for r in rows:
        share = (r["accuracy"] - 0.5) / clean[r["mood"], r["seed"]]
        by[f"mood {r['mood']} | {r['design']} | {r['votes']} votes | {r['way']}"].append((r["accuracy"], share))
    return {
        name: {"accuracy": interval([a for a, _ in some]), "share": interval([s for _, s in some]), "n": len(some)}
        for name, some in by.items()
    }


def against(rows: list[Row], by: Sequence[str], over: str, way: str, base: str) -> dict[str, Any]:
    """Accuracy by `by` and `way`, and its difference from `base` of the same `over` (seed or run)."""
    known = {(*(r[b] for b in by), r[over], r[way]): r["accuracy"] for r in rows}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, accuracy in known.items():
        name = " | ".join(map(str, (*key[:-2], key[-1])))
        found[name]["accuracy"].append(accuracy)
        if (first := known.get((*key[:-1], base))) is not None:
            found[name]["gain"].append(accuracy - first)
    return {
        name: {what: interval(values) for what, values in some.items()} | {"n": len(some["accuracy"])}
        for name, some in found.items()
    }


def write(out: Path) -> dict[str, Any]:
    """Write CSV files, tables.md and pictures into `out`; return every figure."""
    figures = {}
    if rows := rows_of(out, "noise"):
        figures["noise"] = of_noise(rows)
    if rows := rows_of(out, "votes"):
        figures["votes"] = against(rows, ["share"], "run", "way", "pairs, each weighing its margin")
    if rows := rows_of(out, "selection"):
        figures["selection"] = against(rows, ["votes"], "seed", "order", "random")
    if rows := rows_of(out, "lora"):
        figures["lora"] = against(rows, [], "run", "case", "pairs, each weighing its margin")
    lines = []
    for part, found in figures.items():
        lines += [f"## {part}", ""]
        for name, some in found.items():
            said = "; ".join(
                f"{what} {m:.1%} ({lo:.1%} to {hi:.1%})"
                for what, (m, lo, hi) in ((k, v) for k, v in some.items() if k != "n")
            )
            lines.append(f"| {name} | {said} | {some['n']} |")
        lines.append("")
    (out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    return figures
