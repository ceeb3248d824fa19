"""What the judgements of a run say of the people who gave them: agreement, speed, and leanings."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from trueup.feedback import agreement
from trueup.feedback.agreement import Label
from trueup.feedback.judgement import Comparison, Edit, Judgement, Rating, Thumb

Row = dict[str, Any]
Better = tuple[str, str, str]  # (annotator, the completion that this person likes better, the other one)


def figures(judgements: Iterable[Judgement], completions: Iterable[Row]) -> dict[str, Any]:
    """Agreement and each person's figures, for a record; edits count as written, and nothing else is made of them.

    `completions` have uid, prompt_id and completion. Of each person's judgements of one thing the last counts. What was
    given by people whom nobody names counts for the leaning to length alone.
    """
    every = list({(one.annotator, one.kind, one.uid): one for one in judgements}.values())
    last = [one for one in every if one.is_named]
    verdicts = [one for one in last if not isinstance(one, Edit)]
    labels = _labels(verdicts)
    measurement: Any = "ordinal" if any(isinstance(one, Rating) for one in verdicts) else "nominal"
    known = {row["uid"]: row for row in completions}
    told_apart = list(_told_apart([one for one in every if not isinstance(one, Edit)], known))
    return {
        **agreement.raw_agreement(labels),
        "alpha": agreement.krippendorff_alpha(labels, measurement),
        "kappa": agreement.cohens_kappa(labels),
        "dawid_skene": agreement.dawid_skene(labels),
        "num_disputed": len(disputed(verdicts)),
        "num_unnamed": len(every) - len(last),
        "people": _people(last, told_apart, known),
        "prefers_longer": agreement.share(_longer(told_apart, known)),
        "prefers_side_a": agreement.share(_side_a(verdicts)),
    }


def disputed(verdicts: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    """What named people judged differently, by uid, the most judged first."""
    by_unit: dict[str, list[Judgement]] = defaultdict(list)
    for one in verdicts:
        if one.is_named and not isinstance(one, Edit):
            by_unit[one.uid].append(one)
    found = {unit: some for unit, some in by_unit.items() if len({one.value for one in _labels(some)}) > 1}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _people(last: list[Judgement], told_apart: list[Better], known: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """annotator -> how many judgements, how fast, and what is liked, those with the most judgements first."""
    mine: dict[str, list[Judgement]] = defaultdict(list)
    for one in last:
        mine[one.annotator].append(one)
    found = {}
    for annotator, some in sorted(mine.items(), key=lambda item: -len(item[1])):
        seconds = [one.lead_time for one in some if one.lead_time is not None]
        ratings = [one.rating for one in some if isinstance(one, Rating)]
        found[annotator] = {
            "num_judgements": sum(not isinstance(one, Edit) for one in some),
            "num_edits": sum(isinstance(one, Edit) for one in some),
            "median_s": statistics.median(seconds) if seconds else None,
            "up": agreement.share([one.up for one in some if isinstance(one, Thumb)]),
            "mean_rating": statistics.fmean(ratings) if ratings else None,
            "choices": dict(Counter(one.preferred for one in some if isinstance(one, Comparison))),
            "prefers_longer": agreement.share(_longer([one for one in told_apart if one[0] == annotator], known)),
            "prefers_side_a": agreement.share(_side_a(some)),
        }
    return found


def _labels(verdicts: Iterable[Judgement]) -> list[Label]:
    """The verdicts as values that two people share whatever side they saw an answer on.

    Of two answers, `a` is the one that the first person saw on side A. All things have the same few values, since
    agreement by chance is told from how often each value is given.
    """
    first: dict[str, str] = {}
    found = []
    for one in verdicts:
        value: str | int
        if isinstance(one, Comparison):
            a = first.setdefault(one.uid, one.a)
            turned = {"a": "b", "b": "a"} if a != one.a else {}
            value = turned.get(one.preferred, one.preferred)
        else:
            value = ("up" if one.up else "down") if isinstance(one, Thumb) else int(one.verdict)
        found.append(Label(one.uid, one.annotator, value))
    return found


def _told_apart(verdicts: Iterable[Judgement], known: dict[str, Row]) -> Iterable[Better]:
    """Each two completions of one prompt of which one person likes one better: by comparison, by thumbs, by ratings."""
    marks: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # (annotator, prompt) -> completion -> how good
    for one in verdicts:
        if isinstance(one, Comparison):
            if one.preferred in ("a", "b"):
                better, worse = (one.a, one.b) if one.preferred == "a" else (one.b, one.a)
                yield one.annotator, better, worse
        elif one.uid in known:
            marks[one.annotator, known[one.uid]["prompt_id"]][one.uid] = int(one.verdict)
    for (annotator, _), found in marks.items():
        for first, second in combinations(found, 2):
            if found[first] != found[second]:
                better, worse = (first, second) if found[first] > found[second] else (second, first)
                yield annotator, better, worse


def _longer(told_apart: Iterable[Better], known: dict[str, Row]) -> list[bool]:
    """Of each two completions of unequal length that somebody told apart, whether the longer one was liked."""
    found = []
    for _, better, worse in told_apart:
        if better in known and worse in known:
            lengths = len(known[better]["completion"]), len(known[worse]["completion"])
            if lengths[0] != lengths[1]:
                found.append(lengths[0] > lengths[1])
    return found


def _side_a(verdicts: Iterable[Judgement]) -> list[bool]:
    """Of what was chosen on our screen: a file does not say on which side people saw an answer."""
    compared = [one for one in verdicts if isinstance(one, Comparison) and one.annotation_id is not None]
    return [one.preferred == "a" for one in compared if one.preferred in ("a", "b")]
