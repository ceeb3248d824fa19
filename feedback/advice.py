"""What the judgements of a run are good for, and what more of them would be: plain rules, each with its reason.

Nothing here predicts how much better a model gets: counts do not show that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trueup import sample_size
from trueup.feedback import agreement
from trueup.feedback.facts import Facts
from trueup.run import enough

PAIRED_SHARE = 0.5  # of the judgements: with less in pairs, what DPO leaves out is more than what it learns from
MARGIN = 0.1  # how far the true win rate is taken to be above what is wanted, where nothing is known of it
LIKED = 0.8  # the share of thumbs up from which training has little left to gain by the people's own measure
WITHIN = 0.1  # how well agreement should be known, to either side
RELIABLE, TENTATIVE = 0.8, 0.667  # of Krippendorff's alpha
PAIRS_TO_JUDGE = 0.05  # how well the accuracy of a reward model should be known, to either side


@dataclass(frozen=True)
class Advice:
    """One piece of advice. `value` is what it comes to, for a program: a method, a number, or None if not known."""

    about: str
    value: Any
    says: str
    because: str
    source: str


def advise(facts: Facts) -> list[Advice]:
    """What to do, in the order of what it costs."""
    found = [_method(facts), _prompt(facts), _reward(facts), _more_prompts(facts), _agreement(facts), _goal(facts)]
    return [one for one in found if one is not None] + _minutes(facts)


def as_json(facts: Facts, found: Sequence[Advice]) -> dict[str, Any]:
    """JSON values of both."""
    return {"facts": asdict(facts), "advice": [asdict(one) for one in found]}


def _method(facts: Facts) -> Advice:
    used = (
        f"DPO and the reward model learn from {facts.num_in_pairs:,} of {facts.total:,} judgements, KTO from "
        f"{facts.num_in_rows:,}"
    )
    dpo, kto = "Rafailov et al. 2023 (arXiv:2305.18290)", "Ethayarajh et al. 2024 (arXiv:2402.01306)"
    up = facts.share_up
    if not facts.num_pairs and (up is None or up["estimate"] in (0, 1)):
        why = "No judgement prefers an answer to another, and alignment learns from the difference."
        return Advice("method", "label more", "Label more first.", why, "docs/choosing.md")
    few = facts.num_in_pairs < PAIRED_SHARE * facts.total
    if few and facts.num_in_rows > facts.num_in_pairs:
        why = f"{used}: less than half is in pairs."
        return Advice("method", "kto", "KTO fits: method: kto.", why, f"{kto}; half is our rule of thumb")
    return Advice("method", "dpo", "DPO fits: method: dpo.", f"{used}.", f"{dpo}; docs/choosing.md")


def _prompt(facts: Facts) -> Advice | None:
    up, few = facts.share_up, facts.num_prompts < enough.JUDGED_PROMPTS
    liked = up is not None and up["low"] >= LIKED
    if not few and not liked:
        return None
    why = []
    if liked and up is not None:
        why.append(
            f"People liked {up['estimate']:.0%} of the answers ({up['low']:.0%} to {up['high']:.0%}), so training has "
            "little left to gain by their own measure."
        )
    if few:
        why.append(f"{facts.num_prompts:,} judged prompts are fewer than the {enough.JUDGED_PROMPTS} asked for.")
    says = "Try a system prompt or examples in the prompt, and compare: evaluate.baselines."
    why.append("Whether that is enough, these counts do not show.")
    return Advice("prompt", None, says, " ".join(why), "docs/choosing.md")


def _reward(facts: Facts) -> Advice:
    source = "Gao et al. 2023 (arXiv:2210.10760): a policy exploits the errors of its reward"
    needed = sample_size.to_know(PAIRS_TO_JUDGE)
    measured = f"To know its accuracy to {PAIRS_TO_JUDGE * 100:.0f} points takes {needed:,} held-out pairs."
    if facts.reward is None:
        says = "Reward and PPO: not known. `trueup reward` measures its accuracy on held-out prompts."
        return Advice("reward", None, says, measured, source)
    low, high = facts.reward["low"], facts.reward["high"]
    span = f"It is right on {facts.reward['estimate']:.0%} of held-out pairs ({low:.0%} to {high:.0%})."
    if low <= 0.5:
        says = "Reward and PPO: not yet."
        return Advice("reward", False, says, f"{span} That is not shown to be better than chance. {measured}", source)
    says = "Reward and PPO are possible; they take several times longer than DPO."
    return Advice("reward", True, says, span, source)


def _more_prompts(facts: Facts) -> Advice:
    missing = enough.JUDGED_PROMPTS - facts.num_prompts_with_pairs
    source = f"docs/choosing.md asks for {enough.JUDGED_PROMPTS} prompts"
    if missing <= 0:
        says = f"{facts.num_prompts_with_pairs:,} prompts give pairs: enough to begin with."
        return Advice("labels", 0, says, "More help as long as a held-out win rate goes on rising.", source)
    if not facts.num_prompts_with_pairs:
        says = f"Prompts with pairs: {missing:,} more."
        return Advice(
            "labels", None, says, "No prompt gives a pair yet, so how many labels that takes is unknown.", source
        )
    share = agreement.share([n < facts.num_prompts_with_pairs for n in range(facts.num_prompts)]) or {}
    each = facts.total / facts.num_prompts

    def labels(rate: float) -> int:
        return math.ceil(missing / rate * each)

    says = (
        f"About {labels(share['estimate']):,} more judgements ({labels(share['high']):,} to "
        f"{labels(share['low']):,}) for {missing:,} more prompts with pairs."
    )
    why = (
        f"Assumed: new prompts give a pair as often as these, {facts.num_prompts_with_pairs:,} of "
        f"{facts.num_prompts:,}, and take {each:.1f} judgements each."
    )
    return Advice("labels", labels(share["estimate"]), says, why, source)


def _agreement(facts: Facts) -> Advice:
    source = "Krippendorff 2004, ch. 11: 0.8 to rely on, 0.667 for tentative conclusions"
    alpha, needed = facts.alpha, sample_size.to_know(WITHIN)
    if alpha is None or facts.num_compared < needed:
        says = (
            f"Have two people judge the same {needed - facts.num_compared:,} things more, to know how far they agree."
        )
        if alpha is None and facts.num_compared >= needed:
            says = "How far people agree is not defined: everybody gave the same verdict."
        why = (
            f"{facts.num_compared:,} pairs of verdicts are on the same thing; {needed} tell a share to "
            f"{WITHIN * 100:.0f} points, whatever it is."
        )
        return Advice("agreement", None, says, why, "Cochran 1977, eq. 4.1")
    span = f"Alpha is {alpha['estimate']:.2f} ({alpha['low']:.2f} to {alpha['high']:.2f})."
    if alpha["low"] >= RELIABLE:
        return Advice("agreement", True, "People agree well enough to rely on single judgements.", span, source)
    if alpha["high"] < TENTATIVE:
        says = "Improve the guidelines before you collect more, or have several people judge each thing."
        return Advice("agreement", False, says, span, source)
    return Advice("agreement", None, "People agree well enough for a first try.", span, source)


def _goal(facts: Facts) -> Advice | None:
    if facts.wanted is None or not 0 < facts.wanted < 1:
        return None
    win, above = facts.win, facts.wanted
    known = win is not None and win["estimate"] > above
    rate = min(win["estimate"] if known and win else above + MARGIN, 0.99)
    if rate <= above:
        return None
    needed = sample_size.to_show(rate, above)
    has = "" if facts.num_held_out is None else f" There are {facts.num_held_out:,}."
    assumed = (
        f"the {rate:.0%} that the judge of this run found are the truth"
        if known
        else f"the true win rate is {rate:.0%}"
    )
    return Advice(
        "goal",
        needed,
        f"To show a win rate above {above:.0%}: {needed:,} held-out prompts.{has}",
        f"Assumed: {assumed}; the 95% interval lies above the goal in 80% of such evaluations. How many labels "
        "make the win rate so high, counts do not show.",
        "Fleiss, Levin and Paik 2003, eq. 2.6",
    )


def _minutes(facts: Facts) -> list[Advice]:
    found = []
    for kind, minutes in facts.minutes.items():
        if minutes <= 0:
            continue
        rate = facts.weight_by_kind[kind] / minutes
        says = f"{kind.capitalize()}s: {rate:.1f} agreed pairs per annotator-minute."
        why = f"{facts.seconds[kind]:.1f} s in the median, {minutes:,.0f} minutes in all."
        found.append(Advice(f"minutes.{kind}", rate, says, why, "lead_time of the screen"))
    win, total = facts.win, sum(facts.minutes.values())
    if win is None or not total or facts.minutes.keys() != facts.num_judgements.keys():
        says = "Win per annotator-minute: not known."
        why = "It takes an evaluated run, and the time of every judgement."
        return [*found, Advice("minutes.win", None, says, why, "")]
    points = [100 * (win[name] - 0.5) / total for name in ("estimate", "low", "high")]
    says = f"{points[0]:+.2f} points of win rate per annotator-minute ({points[1]:+.2f} to {points[2]:+.2f})."
    several = " Which kind of judgement it comes from, one run does not tell." if len(facts.minutes) > 1 else ""
    why = f"Win rate over SFT less 50%, over {total:,.0f} minutes.{several}"
    return [*found, Advice("minutes.win", points[0], says, why, "the evaluation of this run, by its judge")]
