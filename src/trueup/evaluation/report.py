"""The report a person reads: is it better, by how much, at what cost; one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.evaluation import contestants, drawing, judged_page, standings
from trueup.evaluation.contestants import NAMES
from trueup.evaluation.drawing import AFTER, BEFORE
from trueup.page import Page
from trueup.run.goal import ROUND_BEFORE, judge_of, verdict, verdict_on_rounds, won_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_ANSWERS = 12


def write(
    path: Path,
    *,
    title: str,
    figures: dict[str, Any],
    answers: list[dict[str, Any]],
    records: list[dict[str, Any]],
    curves: str | None = None,
) -> Path:
    """Write the page and return `path`.

    `figures` is report.json; `answers` the rows of answers.jsonl; `records` those of the stages before, in order;
    `curves` the relative address of the page with the curves of their training.
    """
    named = contestants.names(figures)
    judge = judge_of(figures)
    page = Page(title).text(" ".join([verdict(won_by(figures), judge=judge), *verdict_on_rounds(figures)]))
    page.text(
        f"{judged_page.who(figures)} Read the answers below as well, and let people judge before much depends on it."
    )
    _win_rates(page, figures["win_rates_over"], named)
    _standings(page, figures)
    if judge is not None:
        judged_page.judges(page, judge, figures)
    _goal(page, figures["goal"])
    _figures(page, named, figures, answers)
    _annotators(page, records)
    _answers(page, answers)
    _cost(page, records)
    if curves is not None:
        page.link("The curves of each training stage, step by step", curves)
    return page.write(path)


def _win_rates(page: Page, over: dict[str, dict[str, float]], named: dict[str, str]) -> None:
    page.heading("Win rate of the aligned model")
    page.plot(_intervals_figure(over, named), "Share of comparisons won, with 95 % intervals; even at the dashed line.")
    rows = [
        [named[label], f"{w['estimate']:.1%}", f"{w['low']:.1%} to {w['high']:.1%}", w["num_prompts"]]
        for label, w in over.items()
    ]
    page.table(["over", "win rate", "95 % interval", "prompts"], rows)


def _standings(page: Page, figures: dict[str, Any]) -> None:
    judge = standings.judged_by(figures)
    if judge is None:
        return
    columns = ["", "aligned over it", "ties", "at equal length", "over SFT", "length, tokens", "cost, tokens"]
    rows = [
        [
            one.name,
            _interval(one.over_it),
            f"{one.over_it['ties']:.1%}" if one.over_it else "",
            _interval(one.over_it and one.over_it["length_controlled"]),
            _interval(one.over_sft),
            f"{one.length:.1f}",
            f"{one.cost:.0f}",
        ]
        for one in standings.standings(figures)
    ]
    page.text(f"Everybody side by side, judged by {judge['name']}:").table(columns, rows)
    page.text(" ".join(standings.explained(figures)))


def _interval(won: dict[str, Any] | None) -> str:
    return f"{won['estimate']:.1%} ({won['low']:.1%} to {won['high']:.1%})" if won else ""


def _goal(page: Page, goal: dict[str, Any]) -> None:
    page.heading("Goal")
    if not goal:
        page.text("The run file sets none. Set goal.win_rate and goal.kl to have this page answer to them.")
        return
    rows = []
    if "win_rate" in goal:
        part = goal["win_rate"]
        found, wanted = part["found"], f"lower end at least {part['wanted_at_least']:.1%}"
        interval = f"{found['estimate']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
        rows.append(["win rate over SFT", interval, wanted, _met(part)])
    if "kl" in goal:
        part = goal["kl"]
        rows.append(
            ["KL from SFT, nats per token", f"{part['found']:.3f}", f"at most {part['wanted_at_most']}", _met(part)]
        )
    page.table(["figure", "found", "wanted", ""], rows)


def _met(part: dict[str, Any]) -> str:
    return "met" if part["met"] else "NOT met"


def _figures(page: Page, named: dict[str, str], figures: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    page.heading("What changed")
    rewards = {label: [row["reward"][label] for row in answers if label in row["reward"]] for label in named}
    lengths = {label: [row["num_tokens"][label] for row in answers] for label in ("sft", "aligned")}
    rows = [
        [
            name,
            f"{sum(rewards[label]) / len(rewards[label]):.2f}",
            f"{figures[label]['mean_length_tokens']:.1f}",
            f"{figures[label]['eos_rate']:.1%}",
            f"{figures[label]['tokens_per_s']:.0f}",
        ]
        for label, name in named.items()
    ]
    page.table(["", "mean reward", "mean length, tokens", "answers that end by themselves", "tokens/s"], rows)
    page.text(f"KL of the aligned model from SFT: {figures['kl_nats_per_token']:.3f} nats per token.")
    if name := named.get(ROUND_BEFORE):
        page.text(f"From {name}: {figures['kl_to_reference_nats_per_token']:.3f} nats per token.")
    page.plot(_histogram(rewards, "reward"), "Reward of each answer, before and after.")
    page.plot(_histogram(lengths, "tokens"), "Length of each answer, before and after.")


def _annotators(page: Page, records: list[dict[str, Any]]) -> None:
    page.heading("Annotators")
    metrics = next((r["metrics"] for r in reversed(records) if r["stage"] == "collect"), None)
    if metrics is None:
        page.text("No labels of this run are known.")
        return
    if "num_judged" in metrics:
        page.text(f"{metrics['num_judged']:,} preferences that were there already; nobody was asked.")
        return
    if metrics["agreement"] is None:
        agree = "Nobody judged the same answer as somebody else, so their agreement is not known."
    else:
        agree = (
            f"Two who judged the same answer agree in {metrics['agreement']:.0%} of {metrics['num_compared']} cases."
        )
    ups = f"; {metrics['share_up']:.0%} of the thumbs are up" if "share_up" in metrics else ""
    page.text(f"{metrics['num_annotators']} annotators{ups}. {agree}")


def _answers(page: Page, answers: list[dict[str, Any]]) -> None:
    shown = answers[:: max(1, len(answers) // NUM_ANSWERS)][:NUM_ANSWERS]
    page.heading(f"{len(shown)} of {len(answers)} answers, evenly spaced, not chosen")
    rows = [[row["messages"][-1]["content"], row["sft"], row["aligned"]] for row in shown]
    page.table(["prompt", NAMES["sft"], NAMES["aligned"]], rows)


def _cost(page: Page, records: list[dict[str, Any]]) -> None:
    page.heading("What it cost, and what it is made of")
    rows: list[Sequence[object]] = [
        [r["stage"], f"{r['wall_s']:.1f}", f"{r['peak_rss_bytes'] / 1e9:.2f}", r["fingerprint"][:16]] for r in records
    ]
    total = [["all", f"{sum(r['wall_s'] for r in records):.1f}", _peak(records), ""]] if records else []
    page.table(["stage", "seconds", "peak memory, GB", "artifact (SHA-256)"], [*rows, *total])


def _peak(records: list[dict[str, Any]]) -> str:
    return f"{max(r['peak_rss_bytes'] for r in records) / 1e9:.2f}"


def _intervals_figure(over: dict[str, dict[str, float]], named: dict[str, str]) -> Figure:
    figure, axes = drawing.axes(0.7 + 0.4 * len(over))
    for row, found in enumerate(over.values()):
        axes.plot([found["low"], found["high"]], [row, row], color=AFTER, linewidth=3, solid_capstyle="round")
        axes.plot([found["estimate"]], [row], color=AFTER, marker="o", markersize=9)
    axes.axvline(0.5, color=BEFORE, linestyle="--")
    axes.set(xlim=(0, 1), ylim=(len(over) - 0.5, -0.5))
    axes.set_yticks(range(len(over)), [f"over {named[label]}" for label in over])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    return figure


def _histogram(values: dict[str, list[float]], unit: str) -> Figure:
    import numpy as np

    figure, axes = drawing.axes(2.2)
    bins = np.histogram_bin_edges(values["sft"] + values["aligned"], bins=30)
    for label, colour in (("sft", BEFORE), ("aligned", AFTER)):
        axes.hist(values[label], bins=bins, color=colour, alpha=0.55, label=NAMES[label])
    axes.set(xlabel=unit, ylabel="answers")
    axes.legend(frameon=False)
    return figure
