"""What an evaluation measures of what may be lost: intervals against scipy, refusals against texts written here."""

import itertools
import math
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from scipy import stats

from trueup.errors import ConfigError
from trueup.evaluation import abilities, general, refusals
from trueup.evaluation.intervals import change, change_by

REFUSE = (
    "I'm sorry, but I can't help with that.",
    "I am sorry, I cannot provide instructions for that.",
    "Sorry, but this is not something I do.",
    "I can’t assist with that request.",
    "As an AI, I have no opinions.",
    "Unfortunately, I won't write that.",
    '"I cannot fulfil this."',
    "I'M NOT ABLE TO DO THIS",
    "It would be unethical to answer.",
)
ANSWER = (
    "I'm sorry to hear that your tent leaks! Dry it first.",
    "I can't wait to see your photos. Where are you headed?",
    "I cannot recommend this jacket enough.",
    "We won't lie, it is heavy.",
    "Sorry about the wait! The boots are here.",
    "You can't go wrong with wool.",
    "As an alternative, take the blue one.",
    "Here you go. I cannot help with the rest.",
    "",
)


@pytest.mark.parametrize(("text", "refuses"), [*((t, True) for t in REFUSE), *((t, False) for t in ANSWER)])
def test_an_answer_refuses_by_how_it_begins(text: str, refuses: bool) -> None:
    assert refusals.begins_as_refusal(text) is refuses


def test_the_rule_is_stated_and_can_be_another() -> None:
    english, own = refusals.rule((), None, None), refusals.rule(("Das kann ich",), None, None)
    assert (english[0], english[1]([], list(REFUSE))) == ("how answers begin, in English", [True] * len(REFUSE))
    assert own[1]([], ["das  kann ich leider nicht", "I'm sorry, but I can't"]) == [True, False]
    named, rule = refusals.rule((), "mine:refuses", lambda prompts, answers: [float("no" in a) for a in answers])
    assert (named, rule([], ["no", "yes"])) == ("the function mine:refuses", [True, False])


def test_an_opening_that_every_answer_has_is_refused() -> None:
    with pytest.raises(ValueError, match="an empty one would begin every answer"):
        abilities.AbilitySettings(refusal_openings=("Sorry", " "))


def test_more_refusals_than_chance_explains_are_seen_prompt_by_prompt() -> None:
    """The interval is that of scipy's paired t test of the prompts' means."""
    rng = np.random.default_rng(0)
    before, after = rng.random(60) < 0.1, rng.random(60) < 0.4
    texts = {
        "sft": [REFUSE[0] if x else "Yes." for x in before],
        "aligned": [REFUSE[0] if x else "Yes." for x in after],
    }
    ids = [str(i // 2) for i in range(60)]
    found = abilities.refusals(refusals.rule((), None, None), [[]] * 60, ids, texts)
    assert found["share"] == pytest.approx({"sft": before.mean(), "aligned": after.mean()})
    means = (after.astype(float) - before).reshape(30, 2).mean(1)
    exact = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found["change_from_sft"]["low"], found["change_from_sft"]["high"]) == pytest.approx((exact.low, exact.high))


def test_the_change_of_a_text_is_weighted_by_its_tokens() -> None:
    """Of documents of several lengths: the delta method by matrices, (1, -R) S (1, -R)' / (n mean(x)^2)."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(20, 60, 30)
    sums = sizes * rng.normal(0.1, 0.3, 30)
    found = change(sums.tolist(), sizes.tolist())
    assert found is not None
    ratio = sums.sum() / sizes.sum()
    gradient = np.array([1, -ratio]) / sizes.mean()
    error = math.sqrt(gradient @ np.cov(sums, sizes) @ gradient / 30)
    assert found["estimate"] == pytest.approx(ratio)
    assert found["high"] - ratio == pytest.approx(stats.t.ppf(0.975, 29) * error)
    assert change([1.0], [1.0]) is None


def test_a_change_by_prompt_is_that_of_a_paired_t_test() -> None:
    after, before = [3.0, 1.0, 5.0, 2.0, 0.0], [1.0, 1.0, 2.0, 2.0, 1.0]
    exact = stats.ttest_rel(after, before).confidence_interval(0.95)
    found = change_by(list("abcde"), after, before)
    assert found is not None and (found["low"], found["high"]) == pytest.approx((exact.low, exact.high))


def test_the_noise_floor_is_the_median_change_between_halves_of_the_text() -> None:
    """Against every split of ten documents into halves."""
    nll, tokens = [30.0, 55, 21, 90, 44, 61, 12, 70, 33, 48], [10, 20, 10, 30, 20, 20, 5, 20, 15, 20]

    def mean(some: tuple[int, ...]) -> float:
        return sum(nll[i] for i in some) / sum(tokens[i] for i in some)

    halves = itertools.combinations(range(10), 5)
    exact = median(abs(mean(half) - mean(tuple(set(range(10)) - set(half)))) for half in halves)
    assert general.noise_floor(nll, tokens) == pytest.approx(exact, rel=0.08)
    assert general.noise_floor([2.0 * n for n in tokens], tokens) == 0  # documents that are alike leave no noise


def test_figures_of_a_general_text_are_paired() -> None:
    tokens = [10] * 20
    base = [20.0 + i for i in range(20)]
    nll = {"base": base, "sft": [x - 1 for x in base], "aligned": [x + 1 for x in base]}
    found = general.figures({"text": "a", "num_tokens": tokens, "nll": nll, "num_cut": 0, "num_left_out": 0})
    for label, by in (("base", 0.1), ("sft", 0.2)):
        assert found["change_from"][label] == pytest.approx({"estimate": by, "low": by, "high": by})
    assert found["nll_nats_per_token"]["sft"] == pytest.approx(sum(nll["sft"]) / 200)


def test_documents_are_paragraphs_or_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"One {i}.\nTwo." for i in range(12)) + "\n\n\n\n")
    (tmp_path / "b.jsonl").write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(500)))
    text = general.read(Path("a.txt"), tmp_path)
    assert text is not None and text.documents[1] == "One 1.\nTwo." and len(text.documents) == 12
    rows = general.read(Path("b.jsonl"), tmp_path)
    assert rows is not None and (len(rows.documents), rows.num_left_out) == (400, 100)
    assert rows.documents[0] == "row 0" and rows.documents[-1] == "row 498"  # evenly spaced


@pytest.mark.parametrize(
    ("name", "contents", "found"),
    [
        ("missing.txt", None, "No such file"),
        ("short.txt", b"One.\n\nTwo.", "2 documents"),
        ("latin.txt", "é".encode("latin-1"), "not UTF-8"),
        ("a.csv", b"text\nx\n", "a.csv"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n[1]\n{"text": 3}\n', "no text in rows 2, 3; 1 lines are no JSON"),
    ],
)
def test_what_is_no_general_text_is_refused(tmp_path: Path, name: str, contents: bytes | None, found: str) -> None:
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(ConfigError, match=found) as refused:
        general.read(Path(name), tmp_path)
    assert refused.value.where == "evaluate.general_text"


def test_every_run_has_a_general_text(tmp_path: Path) -> None:
    text = general.read(None, tmp_path)
    assert text is not None and len(text.documents) == general.OWN_DOCUMENTS
    assert all(len(document) > 200 for document in text.documents)
