"""Which two answers to a prompt make a pair, and how far people agree that one is better than the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from trueup.feedback.judgement import SIDES, Comparison
from trueup.feedback.votes import Vote

Row = dict[str, Any]
Margins = dict[tuple[str, str], float]  # (chosen, rejected) -> how far people agree, at most 0 when they do not


def pairs(votes: list[Vote], known: dict[str, Row], counts: Counter[str]) -> list[Row]:
    """Up x down of one prompt, within one annotator where possible.

    A pair's `margin` is how far people agree on it, E[up(chosen) - up(rejected)] in (0, 1]: over the annotators who
    judged both, or the difference of the two shares of thumbs up where nobody told the two apart. It is 2 p - 1 for a
    soft label p in which ties count a half, and so it weighs the pair as Furuta et al. 2024 (arXiv:2409.06691) scale
    its gradient: five against none count five times as much as three against two. The pairs of a prompt share its
    weight evenly, so that a prompt on which all agree weighs 1.
    """
    margins = _margins_within(votes)
    if not margins:
        margins = _margins_across(votes)
        counts["prompts_paired_across_annotators"] += any(margin > 0 for margin in margins.values())
    same = {pair for pair in margins if known[pair[0]]["completion"] == known[pair[1]]["completion"]}
    counts["pairs_of_identical_texts"] += len(same)
    different = {pair: margin for pair, margin in sorted(margins.items()) if pair not in same}
    counts["pairs_contradicted"] += sum(margin <= 0 for margin in different.values())
    agreed = {pair: margin for pair, margin in different.items() if margin > 0}
    if not agreed:
        counts["prompts_without_pairs"] += 1
        counts[_why_no_pairs(votes, different, same)] += 1
    return weighted(agreed, known)


def weighted(agreed: Margins, known: dict[str, Row]) -> list[Row]:
    """The pairs of one prompt, which share its weight evenly and each weigh their margin."""
    return [
        {
            "prompt": known[chosen]["messages"],
            "chosen": known[chosen]["completion"],
            "rejected": known[rejected]["completion"],
            "weight": margin / len(agreed),
            "margin": margin,
            "chosen_uid": chosen,
            "rejected_uid": rejected,
            **as_sampled(known[chosen], "chosen"),
            **as_sampled(known[rejected], "rejected"),
        }
        for (chosen, rejected), margin in agreed.items()
    ]


def margins_compared(said: Iterable[Comparison]) -> Margins:
    """Of each pair on which somebody preferred a side, both ways round: (for - against) / all who compared the two."""
    preferred: Counter[tuple[str, str]] = Counter()
    compared: Counter[frozenset[str]] = Counter()
    for one in said:
        compared[frozenset(one.about)] += 1
        if one.preferred in SIDES:
            preferred[(one.a, one.b) if one.preferred == "a" else (one.b, one.a)] += 1
    return {
        (chosen, rejected): (times - preferred.get((rejected, chosen), 0)) / compared[frozenset((chosen, rejected))]
        for (chosen, rejected), times in sorted(preferred.items())
    }


def margins_rated(ratings: Iterable[tuple[str, int]], scale: int) -> Margins:
    """Of each two completions of one prompt with other mean ratings: the difference of these as a share of `scale`."""
    given: dict[str, list[int]] = defaultdict(list)
    for uid, rating in ratings:
        given[uid].append(rating)
    mean = {uid: Fraction(sum(found), len(found)) for uid, found in given.items()}  # exact: equal means are equal
    return {(u, v): float(mean[u] - mean[v]) / scale for u in sorted(mean) for v in sorted(mean) if mean[u] > mean[v]}


def as_sampled(completion: Row, name: str) -> Row:
    """The token ids that were sampled and how the answer ended; nothing for texts that were never sampled."""
    return {f"{name}_{key}": completion[key] for key in ("ids", "finish") if key in completion}


def _margins_within(votes: list[Vote]) -> Margins:
    """Of each pair that somebody told apart: for less against, over all who judged both."""
    mine: dict[str, dict[str, bool]] = defaultdict(dict)
    for vote in votes:
        mine[vote.annotator][vote.uid] = vote.up
    told: Counter[tuple[str, str]] = Counter()
    for thumbs in mine.values():
        ups, downs = [u for u, up in thumbs.items() if up], [u for u, up in thumbs.items() if not up]
        told.update((up, down) for up in ups for down in downs)
    return {
        (up, down): (times - told.get((down, up), 0)) / sum(up in thumbs and down in thumbs for thumbs in mine.values())
        for (up, down), times in told.items()
    }


def _margins_across(votes: list[Vote]) -> Margins:
    """Of each pair of a completion mostly liked and one mostly not: the difference of their shares of thumbs up."""
    thumbs: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        thumbs[vote.uid].append(vote.up)
    share = {uid: sum(found) / len(found) for uid, found in thumbs.items()}
    liked, disliked = [u for u, s in share.items() if s > 0.5], [u for u, s in share.items() if s < 0.5]
    return {(up, down): share[up] - share[down] for up in liked for down in disliked}


def _why_no_pairs(votes: list[Vote], different: Margins, same: set[tuple[str, str]]) -> str:
    """The count that a prompt without pairs goes to."""
    if len({vote.uid for vote in votes}) == 1:
        return "prompts_with_one_judged_answer"
    if {vote.up for vote in votes} == {True}:
        return "prompts_with_thumbs_up_only"
    if {vote.up for vote in votes} == {False}:
        return "prompts_with_thumbs_down_only"
    return "prompts_of_identical_texts" if same and not different else "prompts_contradicted"
