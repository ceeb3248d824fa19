"""What `evaluate` says when it ends, and `status` afterwards: the verdict, who judged, and the goal."""

from __future__ import annotations

from typing import Any

from trueup.evaluation import abilities, frontier, standings
from trueup.evaluation.intervals import num_needed
from trueup.run.goal import answer_to_goal, goal_lines, judge_of, learned, trusted, verdict, verdict_on_rounds, won_by
from trueup.run.run_file import RunFile
from trueup.run.stage import Metrics


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """The verdict, who judged and how far that can be trusted, and the goal of the run file against it."""
    won, judge = won_by(metrics), judge_of(metrics)
    wide = won["high"] - won["low"]
    functions = " + ".join(f"{weight:g} x {name}" for name, weight in metrics.get("reward_functions", {}).items())
    lines = [verdict(won, judge=judge), *verdict_on_rounds(metrics), *standings.length_explains(metrics)]
    if judge is not None:
        lines += [trusted(judge), *filter(None, [learned(metrics)]), *_beside(judge, metrics)]
    lines += standings.lines(metrics)
    lines += frontier.says(metrics) + frontier.gentler(metrics, run.method, run.section(run.method).model_dump())
    if functions and (judge is None or judge["kind"] == "optimized"):
        lines.append(f"warning: the judge is what was optimized, {functions}; nobody else was asked")
    if wide > 0.2:
        enough = f"about {num_needed(won):,} held-out prompts narrow it to 20%"
        lines.append(f"warning: the interval is {wide:.0%} wide; {enough}")
    lines += abilities.says(metrics)
    return [*lines, *goal_lines(answer_to_goal(run.goal.model_dump(), won, metrics["kl_nats_per_token"], judge))]


def _beside(judge: dict[str, Any], metrics: Metrics) -> list[str]:
    """What else there is to say of who judged: why it is not who was asked for, and what others say."""
    lines = []
    if instead := judge.get("instead_of"):
        lines.append(f"warning: the judge is {judge['name']}, for {instead['why']}")
    notes = metrics["judges"][judge["kind"]]["notes"].get("sft", {})
    if asked := notes.get("requests"):
        order = notes["position"]
        lines.append(
            f"{sum(asked.values()):,} requests: {', '.join(f'{count:,} {kind}' for kind, count in asked.items())}; "
            f"the order decided {order['num_changed']:,} of {order['num_both_orders']:,} comparisons"
        )
    for kind, other in metrics["judges"].items():
        if kind != judge["kind"] and "sft" in other["win_rates_over"]:
            won = other["win_rates_over"]["sft"]
            share = f"{won['estimate']:.1%} (95% interval {won['low']:.1%} to {won['high']:.1%})"
            lines.append(f"beside it, no verdict: {other['name']} gives {share}")
    if helped := metrics.get("with_people"):
        share = f"{helped['estimate']:.1%} (95% interval {helped['low']:.1%} to {helped['high']:.1%})"
        lines.append(f"people's labels with the help of {helped['judge']}: {share}")
    return lines
