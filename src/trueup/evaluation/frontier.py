"""The way from SFT to the aligned model over its checkpoints: win rate against KL, and where over-optimization begins.

Gao et al. 2023 (arXiv 2210.10760): the further a policy goes from where it began, the more the reward that it optimizes
and what that reward was learned for part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trueup.evaluation.contestants import STEP, name_of
from trueup.run.goal import FEWEST, judge_of

Row = dict[str, Any]
STRENGTHS = ("kl_coef", "beta")  # of the sections of methods: the larger, the nearer to the reference
LENGTHS = ("num_steps", "max_steps", "num_train_epochs")  # of the same: how long they train
FROM_NOTHING = 0.05  # what is advised in place of a strength of 0


@dataclass(frozen=True)
class Point:
    """A checkpoint, or the aligned model at the end. Win rates have estimate, low and high; None: nobody compared.

    `kl` is from SFT, in nats per token. `judged` and `optimized` are its win rates over SFT, by the judge and by what
    was optimized; `over_it` is the aligned model's win rate over it, by the judge.
    """

    label: str
    name: str
    kl: float
    judged: Row | None
    optimized: Row | None
    over_it: Row | None


def labels(figures: Row) -> list[str]:
    """Those of the checkpoints that an evaluation compared, in order of their steps."""
    found = [label for label, one in figures.items() if STEP.fullmatch(label) and "kl_nats_per_token" in one]
    return sorted(found, key=lambda label: int(label.partition("_")[2]))


def compared_by(figures: Row) -> tuple[str, Row] | None:
    """(kind, figures) of the judge that compared the checkpoints: the verdict's, or, where people gave it, another.

    People are asked about SFT alone. None without checkpoints, and where only what was optimized compared them.
    """
    judge, steps = judge_of(figures), labels(figures)
    if judge is None or not steps or judge["kind"] == "optimized":
        return None
    judges: dict[str, Row] = figures["judges"]
    order = [judge["kind"], *judges] if judge["kind"] == "people" else [judge["kind"]]
    there = (kind for kind in order if kind != "optimized" and steps[0] in judges[kind]["win_rates_over"])
    return next(((kind, judges[kind]) for kind in there), None)


def can_tell(figures: Row) -> tuple[str, Row] | None:
    """`compared_by`, unless that judge cannot tell."""
    found = compared_by(figures)
    return None if found is None or found[1]["can_tell"] is False else found


def points(figures: Row) -> list[Point]:
    """The checkpoints in order of their steps, and then the aligned model; nothing without checkpoints."""
    if not (steps := labels(figures)):
        return []
    nobody: Row = {"win_rates_over": {}, "win_rates_over_sft": {}}
    _, judge = compared_by(figures) or ("", nobody)
    optimized = figures["judges"]["optimized"]["win_rates_over_sft"]
    return [
        Point(
            label,
            name_of(label, figures),
            (figures if label == "aligned" else figures[label])["kl_nats_per_token"],
            judge["win_rates_over_sft"].get(label),
            optimized.get(label),
            judge["win_rates_over"].get(label),
        )
        for label in (*steps, "aligned")
    ]


def best(figures: Row) -> Point | None:
    """The checkpoint with the highest win rate over SFT by the judge; None where nobody may say.

    Where the judge was asked about the aligned model alone, the one over which the aligned model wins least.
    """
    if can_tell(figures) is None:
        return None
    steps = [one for one in points(figures)[:-1] if one.over_it is not None]
    if all(one.judged is not None for one in steps):
        return max(steps, key=lambda one: one.judged["estimate"] if one.judged else 0, default=None)
    return min(steps, key=lambda one: one.over_it["estimate"] if one.over_it else 1, default=None)


def knee(figures: Row) -> Point | None:
    """The checkpoint from which on the aligned model is over-optimized; None where that is not shown.

    It is the best one by the verdict's judge, where that judge prefers its answers to those of the aligned model, with
    an interval below one half, while by what was optimized the aligned model wins more over SFT than the checkpoint
    does, and is further from SFT.
    """
    found = best(figures)
    if found is None or found.over_it is None or found.optimized is None:
        return None
    last = points(figures)[-1]
    shown = found.over_it["high"] < 0.5 and found.over_it["num_prompts"] >= FEWEST
    risen = last.optimized is not None and last.optimized["estimate"] > found.optimized["estimate"]
    return found if shown and risen and last.kl > found.kl else None


def says(figures: Row) -> list[str]:
    """How far the checkpoints are from SFT, and whether the aligned model is over-optimized, in sentences."""
    found = points(figures)
    if not found:
        return []
    told = [f"{one.kl:.3f} at {one.name}" for one in found[:-1]]
    lines = [f"KL from SFT along training, in nats per token: {', '.join(told)}, {found[-1].kl:.3f} at the end."]
    top, judge, last = best(figures), can_tell(figures), found[-1]
    if top is None or judge is None or top.over_it is None:
        why = "no judge that can tell compared the aligned model with its checkpoints"
        return [*lines, f"Whether it is over-optimized is not known: {why}."]
    won = f"{top.over_it['estimate']:.1%} (95% interval {top.over_it['low']:.1%} to {top.over_it['high']:.1%})"
    if knee(figures) is None or top.optimized is None or last.optimized is None:
        of_best = f"the aligned model wins {won} of its comparisons with {top.name}, the best checkpoint"
        return [*lines, f"No over-optimization is shown: {of_best}, judged by {judge[1]['name']}."]
    rises = f"from {top.optimized['estimate']:.1%} to {last.optimized['estimate']:.1%}"
    return [
        *lines,
        f"The aligned model is over-optimized from {top.name} (KL {top.kl:.3f} nats per token) on: it wins {won} of "
        f"its comparisons with {top.name}, judged by {judge[1]['name']}, while its win rate over SFT rises {rises} "
        f"by {figures['judges']['optimized']['name']}.",
    ]


def gentler(figures: Row, method: str, values: Mapping[str, Any]) -> list[str]:
    """What to type where it is over-optimized, a sentence; `values` are those of the section of `method`."""
    if knee(figures) is None:
        return []
    length = next((f" ({method}.{key})" for key in LENGTHS if key in values), "")
    for key in STRENGTHS:
        if key in values:
            more = f"{2 * values[key] or FROM_NOTHING:g}"
            variant = f"--as {key.replace('_', '-')}-{more} --set {method}.{key}={more}"
            return [f"For one that stays nearer to SFT: trueup {method} RUN.yaml {variant} ; or fewer steps{length}."]
    return [f"For one that stays nearer to SFT, train fewer steps{length}."]
