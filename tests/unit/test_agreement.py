"""Agreement against published values and other libraries' worked examples, and accuracies that were planted."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from trueup.feedback.agreement import (
    Label,
    cohens_kappa,
    dawid_skene,
    krippendorff_alpha,
    raw_agreement,
    share,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def _labels(table: dict[str, str]) -> list[Label]:
    """One character per unit and person; a star where the person did not judge."""
    return [Label(str(i), who, value) for who, row in table.items() for i, value in enumerate(row) if value != "*"]


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section E: four observers, twelve units.
PUBLISHED = {"A": "123321412***", "B": "1233224125*3", "C": "*3332342251*", "D": "12332441251*"}


def test_alpha_of_the_published_example() -> None:
    labels = _labels(PUBLISHED)
    nominal = krippendorff_alpha(labels)
    assert nominal is not None
    assert nominal["estimate"] == pytest.approx(0.743, abs=5e-4)
    assert nominal["low"] < nominal["estimate"] < nominal["high"] <= 1
    assert (nominal["num_units"], nominal["num_labels"]) == (11, 40)  # the twelfth unit has one label only
    numbers = [Label(one.unit, one.annotator, int(one.value)) for one in labels]
    ordinal, interval = krippendorff_alpha(numbers, "ordinal"), krippendorff_alpha(numbers, "interval")
    assert ordinal is not None
    assert ordinal["estimate"] == pytest.approx(0.815, abs=5e-4)
    assert interval is not None
    assert interval["estimate"] == pytest.approx(0.849, abs=5e-4)


@pytest.mark.parametrize("table", [{"A": "12"}, {"A": "1*", "B": "*2"}, {"A": "11", "B": "11"}, {}])
def test_no_alpha_where_it_is_not_defined(table: dict[str, str]) -> None:
    assert krippendorff_alpha(_labels(table)) is None


def test_the_interval_of_alpha_covers_what_was_planted() -> None:
    """Two people who copy each other with probability 0.6 and else choose at random have an alpha of 0.6."""
    inside = 0
    for seed in range(40):
        draw = random.Random(seed)
        first = [draw.choice("ab") for _ in range(150)]
        second = [value if draw.random() < 0.6 else draw.choice("ab") for value in first]
        found = krippendorff_alpha(_labels({"A": "".join(first), "B": "".join(second)}), seed=seed)
        assert found is not None
        inside += found["low"] <= 0.6 <= found["high"]
    assert 34 <= inside <= 40  # of a binomial with 40 trials at 0.95, fewer than 34 have a probability of 0.3 %


def test_kappa_of_the_textbook_table() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: observed 0.7, by chance 0.5, kappa 0.4."""
    found = cohens_kappa(_labels({"A": "y" * 25 + "n" * 25, "B": "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15}))
    assert found["num_pairs"] == 1
    assert found["pairs"][0] == {"annotators": ("A", "B"), "kappa": pytest.approx(0.4), "num_units": 50}


def test_kappa_of_the_pairs_with_the_most_in_common_and_of_those_alone() -> None:
    found = cohens_kappa(_labels({"A": "yyyn", "B": "yyyn", "C": "yy**", "D": "****"}), most=1)
    assert found["num_pairs"] == 3
    assert [one["annotators"] for one in found["pairs"]] == [("A", "B")]
    same = cohens_kappa(_labels({"A": "yy", "B": "yy"}))
    assert same["pairs"][0]["kappa"] is None


def test_raw_agreement_counts_pairs_of_people() -> None:
    assert raw_agreement(_labels({"A": "yy", "B": "yn", "C": "y*"})) == {"agreement": 0.75, "num_compared": 4}
    assert raw_agreement(_labels({"A": "yy"})) == {"agreement": None, "num_compared": 0}


def test_a_share_has_wilsons_interval() -> None:
    """Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    for hits, number, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611)):
        found = share([True] * hits + [False] * (number - hits))
        assert found is not None
        assert found["low"] == pytest.approx(low, abs=5e-5)
        assert found["high"] == pytest.approx(high, abs=5e-5)
    assert share([]) is None


def _simulated(num_units: int, accuracies: dict[str, float]) -> list[Label]:
    draw = random.Random(0)
    truth = [draw.random() < 0.5 for _ in range(num_units)]
    return [
        Label(str(unit), who, "up" if (draw.random() < accuracy) == up else "down")
        for unit, up in enumerate(truth)
        for who, accuracy in accuracies.items()
    ]


def test_dawid_and_skene_recover_accuracies_and_say_when_they_cannot() -> None:
    planted = {"A": 0.9, "B": 0.8, "C": 0.7}
    enough = dawid_skene(_simulated(1000, planted))
    assert enough["num_votes"] == enough["votes_needed"] == 3000
    assert enough["accuracies"] == {who: pytest.approx(right, abs=0.05) for who, right in planted.items()}
    few = dawid_skene(_simulated(153, planted))
    assert few == {"num_votes": 459, "votes_needed": 3000, "accuracies": None}
    alone = dawid_skene([*_simulated(153, planted), Label("alone", "A", "up")])
    assert alone["num_votes"] == 459  # a unit that one person judged tells nothing


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(SHARED / name) as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real judgements")
def test_agreement_of_real_people_equals_the_published_values() -> None:
    rows = _rows("pandalm_testset_v1.jsonl.gz")
    labels = [Label(str(row["idx"]), str(k), row[f"annotator{k}"]) for row in rows for k in (1, 2, 3)]
    kappas = {one["annotators"]: round(one["kappa"], 2) for one in cohens_kappa(labels)["pairs"]}
    assert kappas == {("1", "2"): 0.85, ("1", "3"): 0.88, ("2", "3"): 0.86}
    alpha = krippendorff_alpha(labels)
    assert alpha is not None
    assert alpha["estimate"] == pytest.approx(0.8642, abs=5e-5)
    rows = _rows("dices_350_crowdsourced.jsonl.gz")
    votes = [Label(str(n), str(k), vote) for n, row in enumerate(rows) for k, vote in enumerate(row["votes"])]
    alpha = krippendorff_alpha(votes)
    assert alpha is not None
    assert alpha["estimate"] == pytest.approx(0.1609, abs=5e-5)
