"""The verdict in words, and what the run file asks for against what was found."""

from __future__ import annotations

from typing import Any

NOT_MET = "NOT met"
ROUND_BEFORE = "round_before"  # the label of the round before's winner among the contestants of an evaluation
FEWEST = 10  # prompts that a claim takes: see evaluation.intervals


def verdict(win_rate: dict[str, float], over: str = "SFT", judge: dict[str, Any] | None = None) -> str:
    """One sentence from a win rate with its interval: better, worse, or not shown; and who says so, if known.

    `judge` is that of an evaluation's figures. One that is not shown to be right more often than not has no verdict,
    and neither have too few prompts. Anything but SFT that it is compared with is named at once.
    """
    number, low, high = win_rate["num_prompts"], win_rate["low"], win_rate["high"]
    than = "" if over == "SFT" else f" than {over}"
    compared = "the comparisons between the two" if than else f"its comparisons with {over}"
    won = f"it wins {win_rate['estimate']:.1%} of {compared} (95% interval {low:.1%} to {high:.1%}"
    won += f", {number} held-out prompts)" + (f", judged by {judge['name']}" if judge else "")
    if judge and judge["can_tell"] is False:
        return f"The aligned model is neither shown better nor worse{than}, for this judge cannot tell: {won}."
    if judge and _too_few(judge, win_rate):
        few = f"{number} held-out prompts are too few for a claim, and {FEWEST} at least are needed"
        return f"The aligned model is neither shown better nor worse{than}: {few}; {won}."
    if low <= 0.5 <= high:
        unknown = "neither better nor worse, as far as this shows"
        return f"The aligned model is {unknown.replace(',', f'{than},')}: {won}."
    found = "better" if low > 0.5 else "worse"
    return f"The aligned model is {found}{than}: {won}."


def trusted(judge: dict[str, Any]) -> str:
    """How far a judge can be trusted, a sentence."""
    trust = judge["trust"]
    if trust is None:
        return "People judged." if judge["kind"] == "people" else "Nothing says how often this judge is right."
    number, prompts = trust["num_pairs"], trust["num_prompts"]
    if not number:
        return "This judge answered nothing of what people had judged, so that nothing says how often it is right."
    right = f"It is right on {trust['estimate']:.1%} (95% interval {trust['low']:.1%} to {trust['high']:.1%}) of "
    right += f"{number:,} {trust['on']}, of {prompts} prompts"
    if prompts < FEWEST:
        return f"{right}: too few to say so of a judge, {FEWEST} prompts at least are needed."
    return f"{right}{'' if judge['can_tell'] else ', which chance may do as well'}."


def learned(figures: dict[str, Any]) -> str:
    """What the verdict's judge learned from, a sentence; empty where it learned from nothing, or no record says so."""
    judge = judge_of(figures)
    found = None if judge is None else figures["judges"][judge["kind"]].get("learned_from")
    if found is None:
        return ""
    rounds = f"{found['num_rounds']} round{'s' * (found['num_rounds'] != 1)}"
    said = f"It learned from {found['num_judgements']:,} held-out judgements of {rounds}, "
    said += f"on {found['num_prompts']} prompts"
    for name, why in (
        ("num_left_out", "on prompts that a round trained on"),
        ("num_said_again", "that were given again in a later round"),
    ):
        said += f"; without {found[name]:,} {why}" * bool(found[name])
    return f"{said}."


def judge_of(figures: dict[str, Any]) -> dict[str, Any] | None:
    """Who judged, by `kind` and `name`, with `trust` and `can_tell`; None in records of earlier versions."""
    found: dict[str, Any] | None = figures.get("judge")
    return found


def won_by(figures: dict[str, Any]) -> dict[str, float]:
    """The win rate over SFT that the figures of an evaluation begin with; in earlier versions, that of what judged."""
    names = ("win_rate", "win_rate_by_reward_model", "win_rate_by_reward_functions")
    found: dict[str, float] = next(figures[name] for name in names if name in figures)
    return found


def over_round_before(figures: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]] | None:
    """(win rate over the winner of the round before, the judge that says so); None where nobody compared the two.

    The judge is the verdict's, where it compared them; people are asked about SFT alone, so that another one speaks.
    """
    judge = judge_of(figures)
    for kind in () if judge is None else (judge["kind"], *figures["judges"]):
        said = figures["judges"][kind]
        if (won := said["win_rates_over"].get(ROUND_BEFORE)) is not None:
            return won, judge if judge is not None and kind == judge["kind"] else said | {"kind": kind}
    return None


def verdict_on_rounds(figures: dict[str, Any]) -> list[str]:
    """The verdict over the winner of the round before, a sentence; nothing in the first round."""
    found = over_round_before(figures)
    if found is None:
        return []
    won, judge = found
    return [verdict(won, over=f"the winner of round {figures['began_from']['round']}", judge=judge)]


def answer_to_goal(
    goal: dict[str, float | None], win_rate: dict[str, float], kl: float, judge: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Each wanted figure, the found one and whether it is met.

    A win rate is met by its lower bound, by a judge that can tell, on prompts enough.
    """
    answer: dict[str, Any] = {}
    if goal["win_rate"] is not None:
        wanted = goal["win_rate"]
        decides = judge is None or (judge["can_tell"] is not False and not _too_few(judge, win_rate))
        answer["win_rate"] = {"wanted_at_least": wanted, "found": win_rate}
        answer["win_rate"] |= {"met": decides and win_rate["low"] >= wanted}
    if goal["kl"] is not None:
        answer["kl"] = {"wanted_at_most": goal["kl"], "found": kl, "met": kl <= goal["kl"]}
    return answer


def goal_lines(answer: dict[str, Any]) -> list[str]:
    """`answer_to_goal` in words."""
    lines = []
    if "win_rate" in answer:
        found = answer["win_rate"]["found"]
        interval = f"lower end {found['low']:.1%} (estimate {found['estimate']:.1%}, upper end {found['high']:.1%})"
        wanted = f"at least {_percent(answer['win_rate']['wanted_at_least'])}"
        if not answer["win_rate"]["met"] and found["low"] >= answer["win_rate"]["wanted_at_least"]:
            wanted += ", by a judge that can tell"
        lines.append(_line("win rate", interval, wanted, answer["win_rate"]))
    if "kl" in answer:
        found = f"{answer['kl']['found']:.3f} nats per token"
        lines.append(_line("KL", found, f"at most {answer['kl']['wanted_at_most']}", answer["kl"]))
    return lines


def _too_few(judge: dict[str, Any], win_rate: dict[str, float]) -> bool:
    """Whether there are too few prompts for the interval; people's, which holds at every look, holds of few as well."""
    return judge["kind"] != "people" and win_rate["num_prompts"] < FEWEST


def _percent(value: float) -> str:
    return f"{round(100 * value, 2):g}%"


def _line(name: str, found: str, wanted: str, part: dict[str, Any]) -> str:
    return f"goal, {name}: {found}, wanted {wanted}: {'met' if part['met'] else NOT_MET}"
