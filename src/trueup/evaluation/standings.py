"""The contestants of an evaluation in one table: win rates, ties, at equal length, length, and what an answer costs."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from trueup.evaluation.contestants import names
from trueup.run.goal import judge_of

Figures = dict[str, Any]
WIDTH = 78  # columns of a terminal, less the two by which a stage indents what it says


@dataclass(frozen=True)
class Standing:
    """One contestant. `over_it` is the aligned model's win rate over it, `over_sft` its own over SFT; None of nobody.

    A win rate has estimate, low, high, ties and length_controlled. `cost` is the number of tokens, read and sampled,
    that an answer takes.
    """

    label: str
    name: str
    over_it: dict[str, Any] | None
    over_sft: dict[str, Any] | None
    length: float
    eos_rate: float
    cost: float


def judged_by(figures: Figures) -> dict[str, Any] | None:
    """The judge whose comparisons the table shows, of `judges`: the verdict's, or else the first who compared more.

    People compare the aligned model with SFT alone. None in records of earlier versions.
    """
    judge = judge_of(figures)
    if judge is None or "prompt_tokens" not in figures["aligned"]:
        return None
    everybody: dict[str, dict[str, Any]] = figures["judges"]
    most = max(len(one["win_rates_over"]) for one in everybody.values())
    order = sorted(everybody, key=lambda kind: (kind != judge["kind"], kind == "optimized"))
    return next(everybody[kind] for kind in order if len(everybody[kind]["win_rates_over"]) == most)


def standings(figures: Figures) -> list[Standing]:
    """Every contestant, in the order of `names`; nothing in records of earlier versions."""
    judge = judged_by(figures)
    if judge is None:
        return []
    return [
        Standing(
            label=label,
            name=name,
            over_it=judge["win_rates_over"].get(label),
            over_sft=judge["win_rates_over_sft"].get(label),
            length=figures[label]["mean_length_tokens"],
            eos_rate=figures[label]["eos_rate"],
            cost=figures[label]["prompt_tokens"] + figures[label]["sampled_tokens"],
        )
        for label, name in names(figures).items()
    ]


def lines(figures: Figures) -> list[str]:
    """The table as text of 78 columns at most, and what its columns are."""
    found, judge = standings(figures), judged_by(figures)
    if judge is None:
        return []
    rows = [("", "aligned over it", "ties", "LC", "over SFT", "tokens", "cost")]
    for one in found:
        won, own = one.over_it, one.over_sft
        rows.append(
            (
                one.name if len(one.name) <= 24 else f"{one.name[:23]}…",
                f"{won['estimate']:.1%} ({100 * won['low']:.0f} to {100 * won['high']:.0f})" if won else "",
                f"{won['ties']:.0%}" if won else "",
                f"{won['length_controlled']['estimate']:.0%}" if won else "",
                f"{own['estimate']:.1%}" if own else "",
                f"{one.length:.1f}",
                f"{one.cost:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    title = textwrap.wrap(f"the contestants, judged by {judge['name']}:", WIDTH)
    return [*title, *(line.rstrip() for line in text), *textwrap.wrap(" ".join(explained(figures)), WIDTH)]


def explained(figures: Figures) -> list[str]:
    """What the columns of the table are, and what best-of-n comes to at most, in sentences."""
    said = [
        "In brackets are 95% intervals. LC is the win rate at equal length of answers.",
        "Cost is the tokens that are read and sampled for one answer.",
    ]
    judge = judge_of(figures)
    if judge and judge["kind"] not in ("function", "endpoint") and not figures.get("reward_functions"):
        told = [one.name for one in standings(figures) if one.label in ("base", "system_prompt", "few_shot")]
        said += [
            f"Do not rely on the figures of {'; '.join(told)}: the judge learned from answers of SFT alone, and may be "
            "wrong about others."
        ] * bool(told)
    by_number: dict[int, list[str]] = {}
    for one in standings(figures):
        if one.over_it:
            by_number.setdefault(one.over_it["num_prompts"], []).append(one.name)
    fewer = sorted(by_number)[:-1]
    said += [f"On {number} prompts alone: {'; '.join(by_number[number])}." for number in fewer]
    if best := figures.get("best_of"):
        n, won, far = best["n"], best["most_won"], best["most_kl_nats_per_answer"]
        said.append(
            f"The best of {n} is chosen by what was optimized. By that, it wins at most {won:.1%} over one answer of "
            f"the same model, from which it is at most {far:.2f} nats per answer away."
        )
    return said


def length_explains(figures: Figures) -> list[str]:
    """A sentence where the win rate over SFT says something else at equal length; else nothing."""
    won = figures.get("win_rate", {})
    if "length_controlled" not in won:
        return []
    even = won["length_controlled"]
    if _shown(won) == _shown(even):
        return []
    before, after = (figures[label]["mean_length_tokens"] for label in ("sft", "aligned"))
    return [
        f"At equal length it is {_shown(even)}: {even['estimate']:.1%} (95% interval {even['low']:.1%} to "
        f"{even['high']:.1%}). Its answers have {after:.1f} tokens on average, SFT's {before:.1f}."
    ]


def _shown(won: dict[str, Any]) -> str:
    """What an interval shows, in words."""
    return "better" if won["low"] > 0.5 else "worse" if won["high"] < 0.5 else "neither better nor worse"
