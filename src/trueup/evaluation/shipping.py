"""Whether to ship what an evaluation judged: each check with its figures, and the decision that follows from all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from trueup.evaluation import frontier, regressions
from trueup.evaluation.contestants import STEP, name_of
from trueup.evaluation.regressions import Check, Limits
from trueup.run.goal import FEWEST, ROUND_BEFORE, over_round_before, trusted, won_by
from trueup.sample_size import to_show

Row = dict[str, Any]
Decision = Literal["SHIP", "DON'T SHIP", "ASK MORE"]

COSTS = {
    "base": "no training",
    "system_prompt": "no training, but a longer prompt at each request",
    "few_shot": "no training, but a much longer prompt at each request",
}
BEST_OF = re.compile(r"best.?of.?(\d+)")  # labels of contestants
MAY_DECIDE = ("disjoint", "people", "endpoint", "function")  # judges that are not what was optimized


def checks(metrics: Row, answers: Sequence[Row], goal: dict[str, float | None], limits: Limits) -> list[Check]:
    """Every check of an evaluation, from its figures and its answers, against the run file's goal and `limits`."""
    return [
        _judge(metrics),
        _win_rate(metrics, goal["win_rate"]),
        _kl(metrics, goal["kl"]),
        *_round_before(metrics),
        *_baselines(metrics),
        _checkpoints(metrics),
        *regressions.checks(metrics, answers, limits),
    ]


def decide(found: Sequence[Check]) -> Decision:
    """DON'T SHIP where a check failed, else ASK MORE where one is undecided, else SHIP."""
    outcomes = {check.outcome for check in found}
    return "DON'T SHIP" if "failed" in outcomes else "ASK MORE" if "undecided" in outcomes else "SHIP"


def _judge(metrics: Row) -> Check:
    judge = metrics.get("judge")
    if judge is None:
        return Check("judge", "undecided", f"an earlier version judged by the reward alone; {regressions.AGAIN}")
    if judge["kind"] not in MAY_DECIDE:
        why = f", for {judge['instead_of']['why']}" if judge.get("instead_of") else ""
        return Check(
            "judge",
            "undecided",
            f"the judge is {judge['name']}, which is too kind to the aligned model{why}: set evaluate.judge to people, "
            "or hold out more judgements (collect.held_out_fraction) for a judge that learns from these alone",
        )
    if judge["can_tell"] is False:
        return Check("judge", "undecided", f"{judge['name']} cannot tell. {trusted({'trust': None} | judge)}")
    return Check("judge", "passed", f"{judge['name']}. {trusted({'trust': None} | judge)}")


def _win_rate(metrics: Row, wanted: float | None) -> Check:
    won, aim = won_by(metrics), 0.5 if wanted is None else wanted
    named = f"{aim:.1%}" + (", where SFT is as good" if wanted is None else ", the goal")
    by_people = (metrics.get("judge") or {}).get("kind") == "people"
    return _above("win rate over SFT", won, aim, named, by_people)


def _above(name: str, won: dict[str, float], aim: float, named: str, by_people: bool = False) -> Check:
    """Whether a win rate's interval lies above `aim`, below it, or around it; people's holds of few prompts as well."""
    found = f"{won['estimate']:.1%} ({won['low']:.1%} to {won['high']:.1%}, {won['num_prompts']} prompts)"
    if won["num_prompts"] < FEWEST and not by_people:
        return Check(name, "undecided", f"{found}: too few for a claim, {FEWEST} at least are needed", FEWEST)
    if won["low"] >= aim and won["low"] > 0.5:
        return Check(name, "passed", f"{found}, above {named}")
    if won["high"] < aim:
        return Check(name, "failed", f"{found}, below {named}")
    if aim < won["estimate"] < 1:
        needed = max(to_show(won["estimate"], aim), int(won["num_prompts"]) + 1)
        return Check(name, "undecided", f"{found}, around {named}; about {needed:,} prompts would tell", needed)
    return Check(name, "undecided", f"{found}, around {named}; more prompts may well tell that it is below")


def _kl(metrics: Row, wanted: float | None) -> Check:
    found = metrics["kl_nats_per_token"]
    if wanted is None:
        return Check("KL from SFT", "not checked", f"{found:.3f} nats per token; the run file's goal has no kl")
    said = f"{found:.3f} nats per token, at most {wanted} wanted"
    return Check("KL from SFT", "passed" if found <= wanted else "failed", said)


def _round_before(metrics: Row) -> list[Check]:
    """From round 2 on, the aligned model against the winner of the round before."""
    if (began := metrics.get("began_from")) is None:
        return []
    name = f"over round {began['round']}"
    won, judge = over_round_before(metrics) or (None, {"kind": "nobody", "name": "nobody", "can_tell": False})
    if won is None or judge["kind"] not in MAY_DECIDE or judge["can_tell"] is False:
        return [Check(name, "not checked", f"the judge that compares the two is {judge['name']}, which cannot tell")]
    return [_above(name, won, 0.5, f"50.0%, where round {began['round']} is as good")]


def _baselines(metrics: Row) -> list[Check]:
    """The aligned model against each cheaper way that was evaluated."""
    over, kind, who = _compared(metrics)
    if not over:
        cheaper = "a system prompt, or examples in the prompt, may do as well: evaluate.baselines compares"
        return [Check("cheaper ways", "not checked", f"{cheaper}{who}")]
    return [
        _dearer(label, won, metrics, who) or _cheaper(label, won, metrics, kind, who) for label, won in over.items()
    ]


def _cheaper(label: str, won: dict[str, float], metrics: Row, kind: str | None, who: str) -> Check:
    """Against what needs no training: where that is better, training was for nothing."""
    name = f"over {name_of(label, metrics)}"
    if kind == "disjoint":
        said = f"{won['estimate']:.1%}, by a judge that knows answers of SFT alone; functions or an endpoint may tell"
        return Check(name, "not checked", said)
    cost = f" and takes {COSTS[label]}" if label in COSTS else ""
    return _above(name, won, 0.5, f"50.0%, where that is as good{cost}{who}")


def _dearer(label: str, won: dict[str, float], metrics: Row, who: str) -> Check | None:
    """Against the best of several answers, which costs their number at each request; None of other contestants."""
    found = BEST_OF.search(label)
    if found is None:
        return None
    number, name = int(found[1]), name_of(label, metrics)
    said = f"{won['estimate']:.1%} ({won['low']:.1%} to {won['high']:.1%}, {won['num_prompts']} prompts)"
    cost = f"{number} answers and a score of each for every request"
    if won["high"] >= 0.5:
        as_good = "better than" if won["low"] > 0.5 else "not shown to be worse than"
        return Check(f"over {name}", "passed", f"{said}, {as_good} what takes {cost}{who}")
    weigh = f"{said}: that is better, and takes {cost}, which you have to weigh{who}"
    return Check(f"over {name}", "undecided", weigh)


def _checkpoints(metrics: Row) -> Check:
    """The aligned model against its own earlier steps: one that is better is a reason to train less far."""
    name, found, judge = "over its own checkpoints", frontier.points(metrics), frontier.can_tell(metrics)
    if not found:
        return Check(name, "not checked", "an earlier step may be better: evaluate.checkpoints compares")
    over = {one.name: one.over_it for one in found if one.over_it is not None}
    if judge is None or not over:
        return Check(name, "not checked", "no judge that can tell compared them")
    who = "" if judge[0] == metrics["judge"]["kind"] else f"; by {judge[1]['name']}"
    said = {
        step: f"{won['estimate']:.1%} ({won['low']:.1%} to {won['high']:.1%}, {won['num_prompts']} prompts) over {step}"
        for step, won in over.items()
    }
    least = min(over, key=lambda step: over[step]["estimate"])
    if over[least]["num_prompts"] < FEWEST:
        few = f"too few for a claim, {FEWEST} at least are needed"
        return Check(name, "undecided", f"{said[least]}: {few}{who}", FEWEST)
    if lost := [step for step, won in over.items() if won["high"] < 0.5]:
        better = "; ".join(said[step] for step in lost)
        return Check(name, "failed", f"{better}: {'that is' if len(lost) == 1 else 'these are'} better{who}")
    return Check(name, "passed", f"at least {said[least]}: no step of {len(over)} is shown to be better{who}")


def _compared(metrics: Row) -> tuple[dict[str, dict[str, float]], str | None, str]:
    """(the win rate over each cheaper way, the kind of judge, by whom, where it is not the verdict's judge).

    People are asked about SFT alone, so that another judge speaks, where one may.
    """

    def others(won: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        own = ("sft", ROUND_BEFORE)  # and the best of the aligned model's own answers, and its checkpoints
        return {
            label: one
            for label, one in won.items()
            if label not in own and not label.startswith("aligned") and not STEP.fullmatch(label)
        }

    chosen = (metrics.get("judge") or {}).get("kind")
    if chosen != "people" or (found := others(metrics["win_rates_over"])):
        return others(metrics["win_rates_over"]), chosen, ""
    judged = {kind: one for kind, one in metrics.get("judges", {}).items() if others(one["win_rates_over"])}
    for kind, one in judged.items():
        if kind in MAY_DECIDE and one["can_tell"] is not False:
            return others(one["win_rates_over"]), kind, f"; by {one['name']}"
    named = " and ".join(one["name"] for one in judged.values())
    return found, None, f"; only {named} compared, which cannot tell" if named else ""
