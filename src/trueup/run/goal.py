"""The verdict in words, and what the run file asks for against what was found."""

from __future__ import annotations

from typing import Any

NOT_MET = "NOT met"


def verdict(win_rate: dict[str, float], over: str = "SFT") -> str:
    """One sentence from a win rate with its interval: better, worse, or not shown."""
    low, high = win_rate["low"], win_rate["high"]
    found = "better" if low > 0.5 else "worse" if high < 0.5 else "neither better nor worse, as far as this shows"
    return (
        f"The aligned model is {found}: it wins {win_rate['estimate']:.1%} of its comparisons with {over} "
        f"(95 % interval {low:.1%} to {high:.1%}, {win_rate['num_prompts']} held-out prompts)."
    )


def won_by(figures: dict[str, Any]) -> dict[str, float]:
    """The win rate over SFT in the figures of an evaluation, whoever judged: a reward model or reward functions."""
    judges = ("reward_model", "reward_functions")
    found: dict[str, float] = next(figures[name] for judge in judges if (name := f"win_rate_by_{judge}") in figures)
    return found


def answer_to_goal(goal: dict[str, float | None], win_rate: dict[str, float], kl: float) -> dict[str, Any]:
    """Each wanted figure, the found one and whether it is met; a win rate is met by its lower bound."""
    answer: dict[str, Any] = {}
    if goal["win_rate"] is not None:
        wanted = goal["win_rate"]
        answer["win_rate"] = {"wanted_at_least": wanted, "found": win_rate, "met": win_rate["low"] >= wanted}
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
        lines.append(_line("win rate", interval, wanted, answer["win_rate"]))
    if "kl" in answer:
        found = f"{answer['kl']['found']:.3f} nats per token"
        lines.append(_line("KL", found, f"at most {answer['kl']['wanted_at_most']}", answer["kl"]))
    return lines


def _percent(value: float) -> str:
    return f"{round(100 * value, 2):g}%"


def _line(name: str, found: str, wanted: str, part: dict[str, Any]) -> str:
    return f"goal, {name}: {found}, wanted {wanted}: {'met' if part['met'] else NOT_MET}"
