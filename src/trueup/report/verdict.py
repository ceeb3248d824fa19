"""The top of the page: the verdict, its judge, what would tell more, the goal, and whether to ship."""

from __future__ import annotations

from typing import Any

from trueup.evaluation import shipping
from trueup.evaluation.contestants import STEP
from trueup.evaluation.intervals import num_needed
from trueup.evaluation.regressions import Check, Limits
from trueup.evaluation.standings import length_explains
from trueup.page import Page, Tile, Tone
from trueup.report import rows, words
from trueup.report.gathered import Aligned, Built, Gathered
from trueup.run.goal import FEWEST, judge_of, learned, trusted, verdict, verdict_on_rounds, won_by

Row = dict[str, Any]
WIDE = 0.2  # an interval that is wider says little


def add(page: Page, gathered: Gathered) -> None:
    """The verdict and what it rests on; without an evaluation, that there is none."""
    headline = gathered.headline
    if headline is None or headline.evaluation is None:
        page.verdict("There is no verdict yet: no aligned model of this run was evaluated.", "open")
        return
    figures = headline.evaluation.metrics
    said = verdict(won_by(figures), judge=judge_of(figures))
    page.verdict(" ".join([said, *verdict_on_rounds(figures), *length_explains(figures)]), _tone(said))
    page.text(f"{_about(gathered, headline)} {who(figures)}")
    decision, checks = _shipped(gathered, headline.evaluation)
    page.tiles(_tiles(gathered, headline, decision))
    page.heading("What it would take to know more", 3).bullets(_more(gathered, figures, checks))
    _goal(page, gathered, figures)
    page.heading("Should it be used?", 3)
    page.text(f"trueup ship says {decision}, for these reasons:")
    page.table(["check", "outcome", "found"], [[check.name, check.outcome, check.says] for check in checks])


def who(figures: Row) -> str:
    """Who judged, and how far that is to be trusted."""
    judge, functions = judge_of(figures), figures.get("reward_functions")
    if judge is not None and judge["kind"] != "optimized":
        right = trusted(judge).replace("It is right", "The judge is right", 1)
        return f"{right} {learned(figures)}".rstrip()
    if functions:
        named = ", ".join(f"{name} (weight {weight:g})" for name, weight in functions.items())
        return (
            f"The judge is the functions that were optimized: {named}. The win rate says how well the aligned model "
            "does what they reward, and nothing of what people prefer."
        )
    same = "The judge is the run's reward model. It learned from the same judgements as the aligned model."
    if judge is None:
        return f"{same} This evaluation is of an earlier version, which did not measure how often it is right."
    instead = judge.get("instead_of")
    return f"{same} {trusted(judge)}" + (f" There is no judge of its own, for {instead['why']}." if instead else "")


def _about(gathered: Gathered, headline: Aligned) -> str:
    """Which of the run's aligned models the verdict is about."""
    evaluated = [one for one in gathered.aligned if one.evaluation is not None]
    own = f"This is about {headline.built.title}"
    if len(evaluated) < 2:
        return f"{own}."
    why = "the winner of the last round that was evaluated" if headline.wins else "the best of the last round"
    return f"{own}, {why}; {len(evaluated)} aligned models were evaluated, and are compared below."


def _tone(said: str) -> Tone:
    return "good" if said.startswith("The aligned model is better") else "bad" if "is worse" in said[:40] else "open"


def _shipped(gathered: Gathered, evaluation: Built) -> tuple[str, list[Check]]:
    found = shipping.checks(
        evaluation.metrics, evaluation.rows("answers.jsonl"), gathered.run.goal.model_dump(), Limits()
    )
    return shipping.decide(found), found


def _tiles(gathered: Gathered, headline: Aligned, decision: str) -> list[Tile]:
    figures = headline.evaluation.metrics if headline.evaluation else {}
    won, judge = won_by(figures), judge_of(figures)
    trust = judge["trust"] if judge else None
    tiles = [
        ("comparisons won", f"{won['estimate']:.1%}", f"{won['low']:.1%} to {won['high']:.1%}, over SFT"),
        (
            "the judge is right",
            f"{trust['estimate']:.1%}",
            f"{trust['low']:.1%} to {trust['high']:.1%}, by people's votes",
        )
        if trust and trust["num_pairs"]
        else ("the judge is right", "not known", "people asked" if judge and judge["kind"] == "people" else ""),
        ("KL from SFT", f"{figures['kl_nats_per_token']:.3f}", "nats per token: how far it moved"),
        ("trueup ship", decision, "its reasons are below"),
    ]
    took = rows.stages(gathered)
    judgements, spent = (sum(row[name] or 0 for row in took) for name in ("judgements", "annotator_s"))
    tiles += [
        (
            "judgements",
            f"{judgements:,}",
            f"in {words.minutes(spent)} of people's time" if spent else "their time is not known",
        ),
        ("time of all stages", words.minutes(sum(row["wall_s"] or 0 for row in took)), "people's time aside"),
    ]
    return [(figure, what, note) for what, figure, note in tiles]


def _more(gathered: Gathered, figures: Row, checks: list[Check]) -> list[str]:
    """What would make the verdict firmer, each with what to do for it."""
    won, judge = won_by(figures), judge_of(figures)
    lines = []
    if judge is None or judge["kind"] == "optimized":
        lines.append(
            "A judge that was not optimized: set evaluate.judge: people, or have 10 prompts with 20 judgements or more "
            "held out (collect.held_out_fraction), from which a judge of its own learns."
        )
    elif judge["can_tell"] is False:
        lines.append(
            "A judge that is right more often than not: more judgements for it to learn from, clearer guidelines where "
            "people disagree, or evaluate.judge: people."
        )
    if won["num_prompts"] < FEWEST:
        lines.append(f"At least {FEWEST} held-out prompts, where there are {won['num_prompts']:.0f}.")
    lines += [
        f"{check.name}: about {check.num_needed:,} held-out prompts would decide it, if what was found so far is true."
        for check in checks
        if check.outcome == "undecided" and check.num_needed
    ]
    wide = won["high"] - won["low"]
    if wide > WIDE:
        enough = f"about {num_needed(won):,} held-out prompts make it no wider than 20 points"
        lines.append(f"The interval is {100 * wide:.0f} points wide: {enough}.")
    if judge is not None and judge["kind"] not in ("people", "optimized"):
        lines.append(
            "People's own verdict: evaluate.judge: people asks them blind, and stops as soon as the answer is known."
        )
    if len([label for label in figures.get("win_rates_over", {}) if not STEP.fullmatch(label)]) < 2:
        lines.append("Whether a cheaper way does as well: evaluate.baselines adds the base, a prompt, and examples.")
    return lines


def _goal(page: Page, gathered: Gathered, figures: Row) -> None:
    page.heading("The goal", 3)
    goal: Row = figures.get("goal") or {}
    if not goal:
        page.text("The run file set none. With goal.win_rate and goal.kl this page answers to them.")
        return
    found = []
    if part := goal.get("win_rate"):
        wanted = f"lower end at least {part['wanted_at_least']:.1%}"
        found.append(["win rate over SFT", words.share(part["found"]), wanted, _met(part)])
    if part := goal.get("kl"):
        wanted = f"at most {part['wanted_at_most']}"
        found.append(["KL from SFT, nats per token", f"{part['found']:.3f}", wanted, _met(part)])
    page.table(["figure", "found", "wanted", "outcome"], found)


def _met(part: Row) -> str:
    return "met" if part["met"] else "NOT met"
