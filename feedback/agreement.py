"""How far people agree, from labels that several of them gave to the same units.

A unit is whatever was judged (a completion, a pair); a value is the verdict. Nothing here knows what the values mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

LEVEL = 0.95  # of every interval
NUM_BOOTSTRAP = 1000
MOST_PAIRS = 30  # of people whose kappa is computed: those with the most units in common
VOTES_NEEDED = 1000  # overlapping votes of each person; with fewer, Dawid-Skene's accuracies are often off by over 0.05


@dataclass(frozen=True)
class Label:
    """What one person said of one unit."""

    unit: str
    annotator: str
    value: str | int


def raw_agreement(labels: Iterable[Label]) -> dict[str, Any]:
    """The share of pairs of people with the same value for the same unit, and the number of such pairs.

    `agreement` is None where nobody judged the same unit as somebody else.
    """
    same = [a == b for found in _by_unit(labels).values() for a, b in combinations(found.values(), 2)]
    return {"agreement": sum(same) / len(same) if same else None, "num_compared": len(same)}


def krippendorff_alpha(
    labels: Iterable[Label], measurement: Literal["nominal", "ordinal", "interval"] = "nominal", seed: int = 0
) -> dict[str, Any] | None:
    """Krippendorff's alpha (Content Analysis, 2004, ch. 11) with a percentile interval of a bootstrap over units.

    1 is perfect agreement and 0 what chance gives. Values of `ordinal` and `interval` are numbers. Returns estimate,
    low, high, num_units and num_labels (of units with two labels or more), or None where alpha is not defined:
    no unit has two labels, or all labels are the same.
    """
    import krippendorff
    import numpy as np

    units = [list(found.values()) for found in _by_unit(labels).values() if len(found) > 1]
    domain = sorted({value for values in units for value in values}, key=lambda value: (str(type(value)), value))
    if len(domain) < 2:
        return None
    counts = np.array([[values.count(value) for value in domain] for values in units])
    scale = list(range(len(domain))) if measurement == "nominal" else domain

    def alpha(rows: Any) -> float:
        if (rows.sum(axis=0) > 0).sum() < 2:  # a draw in which all agree on one value: nothing to tell apart
            return float("nan")
        return float(krippendorff.alpha(value_counts=rows, value_domain=scale, level_of_measurement=measurement))

    draws = np.random.default_rng(seed).integers(len(counts), size=(NUM_BOOTSTRAP, len(counts)))
    found = [alpha(counts[draw]) for draw in draws]
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "estimate": alpha(counts),
        "low": float(low),
        "high": float(high),
        "num_units": len(units),
        "num_labels": int(counts.sum()),
    }


def cohens_kappa(labels: Iterable[Label], most: int = MOST_PAIRS) -> dict[str, Any]:
    """Cohen's kappa (1960) of each two people who judged some of the same units, the most shared units first.

    `pairs` holds {"annotators": (a, b), "kappa", "num_units"} of at most `most` pairs, and `num_pairs` counts all.
    `kappa` is None where both gave one and the same value throughout.
    """
    from sklearn.metrics import cohen_kappa_score

    shared: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for _, found in sorted(_by_unit(labels).items()):
        for (a, first), (b, second) in combinations(sorted(found.items()), 2):
            shared[a, b].append((str(first), str(second)))
    ranked = sorted(shared, key=lambda pair: (-len(shared[pair]), pair))
    pairs = []
    for a, b in ranked[:most]:
        mine, other = map(list, zip(*shared[a, b], strict=True))
        kappa = None if len({*mine, *other}) == 1 else float(cohen_kappa_score(mine, other))
        pairs.append({"annotators": (a, b), "kappa": kappa, "num_units": len(mine)})
    return {"pairs": pairs, "num_pairs": len(ranked)}


def share(hits: Sequence[bool]) -> dict[str, Any] | None:
    """A share with Wilson's (1927) interval: estimate, low, high, num; None of nothing."""
    from scipy.stats import binomtest

    if not hits:
        return None
    interval = binomtest(sum(hits), len(hits)).proportion_ci(LEVEL, method="wilson")
    return {
        "estimate": sum(hits) / len(hits),
        "low": float(interval.low),
        "high": float(interval.high),
        "num": len(hits),
    }


def dawid_skene(labels: Sequence[Label]) -> dict[str, Any]:
    """How often each person is right, with the truth unknown: the model of Dawid and Skene (1979), by EM.

    Only units that two people or more judged count. Returns `num_votes` (overlapping ones), `votes_needed`, and
    `accuracies` by person, sum_k P(truth = k) P(says k | truth = k). The accuracies are None below `votes_needed`,
    1,000 for each person: three people whose accuracies are 0.9, 0.8 and 0.7 were all within 0.05 of them in 40 % of
    simulated runs at 460 overlapping votes in all, in 83 % at 1,500, and in 93 % at 3,000.
    """
    overlapping = [label for found in _by_unit(labels).items() if len(found[1]) > 1 for label in _labels(*found)]
    people = sorted({label.annotator for label in overlapping})
    needed = VOTES_NEEDED * max(len(people), 2)
    known: dict[str, Any] = {"num_votes": len(overlapping), "votes_needed": needed, "accuracies": None}
    if len(overlapping) < needed:
        return known
    import warnings

    import pandas as pd
    from crowdkit.aggregation.classification.dawid_skene import DawidSkene

    rows = [(label.unit, label.annotator, str(label.value)) for label in overlapping]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="crowdkit")  # of pandas, about how crowdkit calls it
        model = DawidSkene(n_iter=100, tol=1e-5).fit(pd.DataFrame(rows, columns=["task", "worker", "label"]))
    prior, errors = model.priors_, model.errors_
    return known | {
        "accuracies": {
            person: float(
                sum(prior[k] * errors.loc[(person, k), k] for k in prior.index if (person, k) in errors.index)
            )
            for person in people
        }
    }


def _by_unit(labels: Iterable[Label]) -> dict[str, dict[str, str | int]]:
    """unit -> annotator -> value; of two labels of one person for one unit the last counts."""
    found: dict[str, dict[str, str | int]] = defaultdict(dict)
    for label in labels:
        found[label.unit][label.annotator] = label.value
    return found


def _labels(unit: str, found: dict[str, str | int]) -> list[Label]:
    return [Label(unit, annotator, value) for annotator, value in found.items()]
