"""What a vote buys, from the rows of `budgets`, `policies` and `best`: CSV, Markdown, a picture, and the figures.

Intervals are Student's t, 95 %, over seeds; a difference is ours less raw TRL, seed by seed, before it is averaged.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from label_parts import budgets
from label_parts.features import Row
from label_parts.tables import interval, rows_of

RAW, MOST = "raw TRL", 1000
BOTH = "mean of lora and head"
ONE, BEST = ", one answer", ", best of 4 by "
Seeds = dict[int, float]  # by seed, an accuracy or a win rate
Line = dict[int, Seeds]  # by budget
Figures = dict[str, dict[str, Line]]  # by task and way


def rewards(out: Path, accuracy_of: Callable[[str, np.ndarray], float]) -> Figures:
    """Accuracy in truth; `accuracy_of` a task and scores is asked for the mean of both of ours, which none trained."""
    found: Figures = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows_of(out, "budgets"):
        found[row["task"]][row["way"]][row["budget"]][row["seed"]] = row["accuracy"]
    for task, ways in found.items():
        for budget, seeds in list(ways.get("lora", {}).items()):
            for seed in set(seeds) & set(ways["head"][budget]):
                said = [budgets.kept(out, task, budget, seed, way)["scores"] for way in ("lora", "head")]
                both = sum((one - one.mean()) / one.std() for one in said)
                ways[BOTH][budget][seed] = accuracy_of(task, np.asarray(both))
    return {task: _raw_first(ways) for task, ways in found.items()}


def policies(out: Path) -> Figures:
    """Win rate over SFT in truth: of one answer, and of the best of four by a reward of the same votes."""
    found: Figures = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows_of(out, "policies"):
        found[row["task"]][row["way"] + ONE][row["budget"]][row["seed"]] = row["win_rate"]
    for row in rows_of(out, "best"):
        by = row["reward"] if row["way"] == RAW else f"ours ({row['reward']})"
        found[row["task"]][row["way"] + BEST + by][row["budget"]][row["seed"]] = row["win_rate"]
        found[row["task"]]["SFT" + BEST + by][row["budget"]][row["seed"]] = row["of_sft"]
    return {task: _raw_first(ways) for task, ways in found.items()}


def difference(ours: Seeds, raw: Seeds) -> tuple[float, float, float] | None:
    """Ours less raw TRL's on the seeds that both have, mean and interval; None where they share fewer than two."""
    both = sorted(set(ours) & set(raw))
    return interval([ours[seed] - raw[seed] for seed in both]) if len(both) > 1 else None


def votes_for(line: Line, wanted: float) -> str:
    """The number of votes at which the means of a line reach what is `wanted`, interpolated on their logarithm."""
    points = sorted((budget, float(np.mean(list(seeds.values())))) for budget, seeds in line.items() if seeds)
    if not points:
        return ""
    if points[0][1] >= wanted:
        return f"{points[0][0]} or fewer"
    for (low, before), (high, after) in pairwise(points):
        if after >= wanted:
            share = (wanted - before) / (after - before)
            return f"{math.exp(math.log(low) + share * math.log(high / low)):.0f}"
    return f"not reached with {points[-1][0]}"


def lines(figures: Figures, what: str) -> Iterator[Row]:
    """A flat row for each task, way and budget."""
    for task, ways in figures.items():
        for way, line in ways.items():
            raw = ways.get(_peer(way), {})
            for budget, seeds in sorted(line.items()):
                mean, low, high = interval(list(seeds.values()))
                row = {"what": what, "task": task, "way": way, "votes": budget, "seeds": len(seeds)}
                row |= {"mean": mean, "low": low, "high": high}
                less = difference(seeds, raw.get(budget, {})) if way != _peer(way) else None
                names = ("less_raw", "less_raw_low", "less_raw_high")
                yield row | dict(zip(names, less or (None, None, None), strict=True))


def reached(figures: Figures, of_raw: Callable[[str], str]) -> Row:
    """By task and way, the votes at which it equals what the line `of_raw` says of it has at 1,000."""
    found: Row = {}
    for task, ways in figures.items():
        for way, line in ways.items():
            raw = ways.get(of_raw(way), {}).get(MOST)
            if raw and way != of_raw(way):
                found.setdefault(task, {})[way] = votes_for(line, float(np.mean(list(raw.values()))))
    return found


def write(out: Path, accuracy_of: Callable[[str, np.ndarray], float]) -> Row:
    """Write curves.csv, curves.md and curves.png into `out`; every figure."""
    whats = {"accuracy": rewards(out, accuracy_of), "win rate": policies(out)}
    flat = [row for what, figures in whats.items() for row in lines(figures, what)]
    if not flat:
        return {}
    with (out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()} for row in flat)
    equal = {what: reached(figures, _peer) for what, figures in whats.items()}
    plain = reached(whats["win rate"], lambda way: RAW + ONE)  # what raw TRL does: DPO, and one answer
    text = "\n\n".join(_markdown(what, figures, equal[what]) for what, figures in whats.items() if figures)
    (out / "curves.md").write_text(text + "\n", encoding="utf-8")
    _picture(whats, out / "curves.png")
    return {"rows": flat, "votes_that_equal_raw_trl_with_1000": equal | {"win rate of one answer": plain}}


def _raw_first(ways: dict[str, Line]) -> dict[str, Line]:
    return {way: ways[way] for way in sorted(ways, key=lambda way: (not way.startswith(RAW), way)) if ways[way]}


def _peer(way: str) -> str:
    """The line of raw TRL that a way is compared with: one answer with one answer, the best of four with the same."""
    if way.endswith(ONE):
        return RAW + ONE
    return RAW + BEST + RAW if BEST in way else RAW


def _markdown(what: str, figures: Figures, equal: Row) -> str:
    """A table for each task: a line for each way, a column for each budget."""
    made = []
    for task, ways in figures.items():
        columns = sorted({budget for line in ways.values() for budget in line})
        heads = ["", *(f"{budget} votes" for budget in columns), f"equals raw TRL's {MOST:,} at"]
        made += [f"## {task}, {what}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for way, line in ways.items():
            cells = [_cell(line.get(budget, {}), ways.get(_peer(way), {}).get(budget, {}), way) for budget in columns]
            made.append(f"| {' | '.join([way, *cells, equal.get(task, {}).get(way, '')])} |")
        made.append("")
    return "\n".join(made)


def _cell(seeds: Seeds, raw: Seeds, way: str) -> str:
    if not seeds:
        return ""
    mean, low, high = (100 * value for value in interval(list(seeds.values())))
    told = f"{mean:.1f} %" + (f" ({low:.1f} to {high:.1f})" if len(seeds) > 1 else " (one seed)")
    less = difference(seeds, raw) if way != _peer(way) else None
    return told if less is None else f"{told}; {100 * less[0]:+.1f} ({100 * less[1]:+.1f} to {100 * less[2]:+.1f})"


def _picture(whats: dict[str, Figures], path: Path) -> None:
    """A panel for each task: accuracy above, win rate below; bands are the intervals, and raw TRL is black."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = {what: figures for what, figures in whats.items() if figures}
    width = max(len(figures) for figures in rows.values())
    figure = Figure(figsize=(3.6 * width + 2.6, 3.4 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), width, squeeze=False)
    others = dict.fromkeys(way for some in rows.values() for ways in some.values() for way in ways if way != _peer(way))
    colours = {way: colormaps["tab10"](number) for number, way in enumerate(others)}
    shown = {}
    for level, (what, figures) in enumerate(rows.items()):
        for axis in axes[level][len(figures) :]:
            axis.set_axis_off()
        for axis, (task, ways) in zip(axes[level], figures.items(), strict=False):
            for way, line in ways.items():
                at = sorted(budget for budget, seeds in line.items() if seeds)
                means, lows, highs = zip(*(interval(list(line[budget].values())) for budget in at), strict=True)
                colour, style = colours.get(way, "black"), ".--" if BEST in way else ".-"
                shown[way] = axis.plot(at, means, style, color=colour)[0]
                axis.fill_between(at, lows, highs, alpha=0.1, color=colour)
            axis.set(
                xscale="log",
                xlim=(35, 1150),
                xlabel="votes",
                title=task,
                ylabel=what if task == next(iter(figures)) else "",
            )
            axis.set_xticks(budgets.BUDGETS, [str(budget) for budget in budgets.BUDGETS])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    figure.legend(shown.values(), shown.keys(), loc="outside right upper", frameon=False, fontsize=7)
    figure.savefig(path, dpi=100)
