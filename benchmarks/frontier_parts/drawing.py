"""The frontier as a picture, a CSV file, and a table for the page: what is said of a policy against its KL from SFT."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

Row = dict[str, Any]
BEST_OF = {"one": "#d62728", "mean of five": "#9467bd", "min of five": "#1f77b4", "five, variance": "#2ca02c"}
COLOURS = {"one": "#d62728", "five, min": "#1f77b4", "five, variance": "#2ca02c"}
OPTIMIZED = {"one": "one", "five, min": "min of five", "five, variance": "five, variance"}
JUDGE, TRUTH = "disjoint judge", "truth"


def said(row: Row, who: str) -> Row:
    """What `who` says of a row's policy: "optimized" is the reward that it was, or would have been, optimized for."""
    found: Row = row["says"][OPTIMIZED[row["reward"]] if who == "optimized" else who]
    return found


def knee(line: list[Row]) -> float | None:
    """The KL from which the truth falls while the optimized reward rises, along a line sorted by KL.

    The truth must fall by more than one standard error of the gain behind the best policy; None where it does not.
    """
    best = max(line, key=lambda row: said(row, TRUTH)["gain"])
    for row in line[line.index(best) + 1 :]:
        fallen = said(best, TRUTH)["gain"] - said(row, TRUTH)["gain"]
        risen = said(row, "optimized")["gain"] > said(best, "optimized")["gain"]
        if risen and fallen > said(row, TRUTH)["gain_error"]:
            return float(best["kl"])
    return None


def lines(rows: list[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by (method, labels, reward), each line by KL."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["kl"]):
        found.setdefault((row["method"], row["labels"], row["reward"]), []).append(row)
    return found


def draw(rows: list[Row], out: Path, table: Path, steps: list[Row]) -> None:
    """Write the picture and the CSV file of the policies in `rows`; print tables as Markdown.

    `steps` are the rollouts of PPO as they went, the last of each step where one was collected twice.
    """
    if rows:
        _picture(lines(rows), out)
        _csv(rows, table)
        _markdown(lines(rows))
    by_key: dict[str, dict[int, Row]] = {}
    for row in steps:
        by_key.setdefault(row["key"], {})[row["step"]] = row
    for key, found in by_key.items():
        told = [f"{row['kl']:.2f}: {row['reward']:+.2f}, {row['truth']:+.2f}" for _, row in sorted(found.items())]
        print(f"{key}, KL: reward, truth of each rollout: {'; '.join(told)}")


def best_of_n(rows: list[Row], out: Path) -> None:
    """Draw best-of-n, means over the draws of the noise with their standard errors, and print them as a table."""
    if not rows:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    heads = ["thumbs", "reward", *(f"n = {n}" for n in sorted({row["n"] for row in rows} - {1}))]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for axis, labels in zip(figure.subplots(1, 2, sharey=True), ("clean", "flipped"), strict=True):
        for reward, colour in BEST_OF.items():
            some = [row for row in rows if (row["labels"], row["reward"]) == (labels, reward)]
            numbers = sorted({row["n"] for row in some})
            by_n = [[row for row in some if row["n"] == n] for n in numbers]
            at = [found[0]["kl"] for found in by_n]
            means, errors = zip(*(_mean([row["truth"] for row in found]) for found in by_n), strict=True)
            axis.errorbar(at, means, errors, fmt="o-", markersize=4, color=colour, label=f"truth, reward: {reward}")
            optimized = [_mean([row["reward_gain"] for row in found])[0] for found in by_n]
            axis.plot(at, optimized, "x--", color=colour, alpha=0.6, label=f"optimized reward: {reward}")
            told = [f"{mean:+.2f} ± {error:.2f}" for mean, error in zip(means[1:], errors[1:], strict=True)]
            print(f"| {labels} | {reward} | {' | '.join(told)} |")
        noise = "clean thumbs" if labels == "clean" else "25 % of the thumbs flipped"
        axis.set(xlabel="KL from SFT, nats per token, at most", title=f"best-of-n, {noise}")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=7)
        for found in by_n:
            axis.annotate(f"n = {found[0]['n']}", (found[0]["kl"], 0), fontsize=6, rotation=90)
    print(_differences(rows))
    figure.axes[0].set_ylabel("gain over SFT, in spreads")
    figure.savefig(out, dpi=100)


def _differences(rows: list[Row]) -> str:
    """How much more each way of five gains in truth than one reward does, draw by draw, at the largest n."""
    most, told = max(row["n"] for row in rows), []
    for labels in ("clean", "flipped"):
        by_draw: dict[int, dict[str, float]] = {}
        for row in rows:
            if (row["labels"], row["n"]) == (labels, most):
                by_draw.setdefault(row["seed"], {})[row["reward"]] = row["truth"]
        for reward in BEST_OF:
            if reward != "one":
                mean, error = _mean([found[reward] - found["one"] for found in by_draw.values()])
                told.append(f"{labels}, {reward} less one, n = {most}: {mean:+.3f} ± {error:.3f}")
    return "\n".join(told)


def _mean(values: list[float]) -> tuple[float, float]:
    """(mean, standard error)."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.mean(values), error


def _picture(drawn: dict[tuple[str, str, str], list[Row]], out: Path) -> None:
    from matplotlib.figure import Figure

    columns = [("ppo", "clean"), ("ppo", "flipped"), ("dpo", "clean"), ("dpo", "flipped")]
    figure = Figure(figsize=(15, 6.6), layout="constrained")
    axes = figure.subplots(2, 4, sharey="row", squeeze=False)
    for place, (method, labels) in enumerate(columns):
        for level, what in enumerate(("gain", "estimate")):
            axis = axes[level][place]
            for (of, with_labels, reward), line in drawn.items():
                if (of, with_labels) == (method, labels):
                    _line(axis, line, reward, what)
            noise = "clean thumbs" if labels == "clean" else "25 % of the thumbs flipped"
            axis.set(xlabel="KL from SFT, nats per token", title=f"{method.upper()}, {noise}" if level == 0 else "")
            axis.axhline(0 if what == "gain" else 0.5, color="#999999", linewidth=0.8)
            axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("gain over SFT, in spreads of SFT's scores")
    axes[1][0].set_ylabel("win rate over SFT")
    axes[0][0].legend(frameon=False, fontsize=7)
    figure.savefig(out, dpi=100)


def _line(axis: Any, line: list[Row], reward: str, what: str) -> None:
    at, colour = [row["kl"] for row in line], COLOURS[reward]
    values = {who: [said(row, who)[what] for row in line] for who in (TRUTH, JUDGE, "optimized")}
    errors = [said(row, TRUTH)["gain_error"] for row in line] if what == "gain" else None
    axis.errorbar(at, values[TRUTH], errors, fmt="o-", color=colour, label=f"truth, reward: {reward}", markersize=4)
    axis.plot(at, values["optimized"], "x--", color=colour, label=f"optimized reward, {reward}", markersize=5)
    axis.plot(at, values[JUDGE], ".:", color=colour, label=f"disjoint judge, {reward}", alpha=0.6)
    if (turned := knee(line)) is not None:
        axis.axvline(turned, color=colour, linewidth=1, linestyle="-.", alpha=0.7)
        axis.annotate("knee", (turned, 0.02), xycoords=("data", "axes fraction"), color=colour, fontsize=7)


def _csv(rows: list[Row], path: Path) -> None:
    who = ("optimized", *rows[0]["says"])
    heads = [f"{name}, {what}" for name in who for what in ("win rate", "gain", "gain's standard error")]
    with path.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["method", "labels", "reward", "beta or kl_coef", "KL", "tokens", "EOS rate", *heads])
        for row in rows:
            told = [f"{said(row, name)[w]:.4f}" for name in who for w in ("estimate", "gain", "gain_error")]
            about = [row["method"], row["labels"], row["reward"], row["strength"]]
            table.writerow([*about, f"{row['kl']:.4f}", f"{row['length_tokens']:.1f}", f"{row['eos_rate']:.3f}", *told])


def _markdown(found: dict[tuple[str, str, str], list[Row]]) -> None:
    heads = ("method", "thumbs", "reward", "beta or `kl_coef`", "KL", "optimized", "disjoint judge", "truth", "gain")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for (method, labels, reward), line in sorted(found.items()):
        for row in line:
            rates = [f"{said(row, who)['estimate']:.1%}" for who in ("optimized", JUDGE, TRUTH)]
            gain = f"{said(row, TRUTH)['gain']:+.2f} ± {said(row, TRUTH)['gain_error']:.2f}"
            shown = "none is read" if method == "dpo" else reward
            cells = [method, labels, shown, f"{row['strength']:g}", f"{row['kl']:.3f}", *rates, gain]
            print(f"| {' | '.join(cells)} |")
    for key, line in sorted(found.items()):
        turned = knee(line)
        print(f"{', '.join(key)}: {'no knee' if turned is None else f'knee at KL {turned:.3f}'}")
