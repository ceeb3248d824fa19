"""Plots that all pages share: sizes, colours, lines over steps, and intervals beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by colour-blind readers, and dark and light enough for a white and a black page
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
MAIN, GREY = COLOURS[0], "#8a94a6"
STYLES = ("-", "--", "-.", ":")  # beside the colours, for those who see none, and for paper
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 4.4  # inches; a phone shows it without making the text much smaller
TEXT_POINTS = 9
MOST_POINTS = 300  # of a line; longer ones are drawn as means of blocks
LONGEST_LABEL = 58  # characters above an interval
PERCENT = ([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, drawn in a line of its own; `main` ones are filled."""

    label: str
    estimate: float
    low: float
    high: float
    main: bool = True


def axes(height: float, width: float = WIDTH) -> tuple[Figure, Any]:
    """A figure of this size, in inches, and its axes without a frame above and on the right."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": TEXT_POINTS}):
        figure = Figure(figsize=(width, height))
        drawn = figure.subplots()
    drawn.tick_params(labelsize=TEXT_POINTS)
    drawn.spines[["top", "right"]].set_visible(False)
    return figure, drawn


def legend(drawn: Any) -> None:
    """The names of what is drawn, above the plot, where they hide nothing."""
    drawn.legend(frameon=False, fontsize=TEXT_POINTS, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)


def lines(named: Mapping[str, Points], x: str = "step", y: str = "") -> Figure:
    """A line for each name, over whole numbers; long ones are thinned, which `thinned` says in words."""
    from matplotlib.ticker import MaxNLocator

    figure, drawn = axes(2.3)
    for number, (name, points) in enumerate(named.items()):
        shown = _blocks(points)
        drawn.plot(
            *zip(*shown, strict=True),
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number // len(COLOURS) % len(STYLES)] if len(named) > len(COLOURS) else STYLES[number % 4],
            marker="." if len(shown) < 40 else "",
            linewidth=1.5,
            label=name,
        )
    drawn.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.set(xlabel=x, ylabel=y)
    drawn.grid(alpha=0.3)
    if len(named) > 1:
        legend(drawn)
    return figure


def thinned(named: Mapping[str, Points]) -> str:
    """What `lines` leaves out of its points, in words; empty where it draws each."""
    longest = max((len(points) for points in named.values()), default=0)
    return f" Each point is the mean of up to {_block(longest)} steps." if longest > MOST_POINTS else ""


def forest(rows: Sequence[Interval], even: float = 0.5) -> Figure:
    """Intervals of shares beside one another, each below its label, with a dashed line where things are `even`."""
    figure, drawn = axes(0.55 + 0.42 * len(rows))
    for place, row in enumerate(rows):
        drawn.plot([row.low, row.high], [place] * 2, color=MAIN, linewidth=2.5, solid_capstyle="round")
        face = MAIN if row.main else "#ffffff"
        drawn.plot([row.estimate], [place], color=MAIN, marker="o", markersize=7, markerfacecolor=face)
        behind = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1}  # the dashed line
        drawn.text(0, place - 0.3, shortened(row.label), fontsize=TEXT_POINTS, verticalalignment="bottom", bbox=behind)
    drawn.axvline(even, color=GREY, linestyle="--", linewidth=1)
    drawn.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.85))
    drawn.set_xticks(*PERCENT)
    drawn.set_yticks([])
    drawn.spines["left"].set_visible(False)
    return figure


def shortened(label: str, most: int = LONGEST_LABEL) -> str:
    """A label that has room in a plot; the table below it has all of it."""
    return label if len(label) <= most else label[: most - 1] + "…"


def _block(number: int) -> int:
    return -(-number // MOST_POINTS)


def _blocks(points: Points) -> Points:
    """The points, or, of many, the mean of each block of them."""
    size = _block(len(points))
    if size <= 1:
        return points
    some = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in one) / len(one), sum(y for _, y in one) / len(one)) for one in some]
