"""Comparisons, ratings and edits become examples; each judgement is counted once. Expected values are by hand."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.errors import FeedbackError
from trueup.feedback.examples import build
from trueup.feedback.judgement import COMPARED, Comparison, Edit, Judgement, Rating, Thumb

ANSWERS = [
    {"uid": uid, "prompt_id": "p", "messages": [{"role": "user", "content": "q"}], "completion": f"answer {uid}"}
    for uid in "abcd"
]


def compared(preferred: str, annotator: str = "x", a: str = "a", b: str = "b") -> Comparison:
    return Comparison(uid="".join(sorted(a + b)), annotator=annotator, a=a, b=b, preferred=preferred)


def rated(uid: str, rating: int, annotator: str = "x") -> Rating:
    return Rating(uid=uid, annotator=annotator, rating=rating)


def pairs(said: list[Any], answers: list[Any] = ANSWERS) -> dict[tuple[str, str], tuple[float, float]]:
    """(margin, weight) by (chosen, rejected)."""
    made = build(said, answers, held_out=0).pairs
    return {(p["chosen"], p["rejected"]): (p["margin"], p["weight"]) for p in made}


def test_the_preferred_side_is_chosen_wherever_it_was_shown() -> None:
    expected = {("answer a", "answer b"): (1.0, 1.0)}
    assert pairs([compared("a")]) == pairs([compared("b", a="b", b="a")]) == expected
    assert pairs([compared("b")]) == {("answer b", "answer a"): (1.0, 1.0)}


@pytest.mark.parametrize(
    ("verdicts", "margin"),
    [
        (["a", "a", "a", "a", "a"], 1.0),
        (["a", "a", "a", "b", "b"], 0.2),  # 2 p - 1 of p = 3/5
        (["a", "tie"], 0.5),  # a tie counts a half for each: p = 3/4
        (["a", "a", "b", "both_bad"], 0.25),  # p = (2 + 1/2) / 4
    ],
)
def test_a_pair_weighs_how_far_people_agree(verdicts: list[str], margin: float) -> None:
    said = [compared(verdict, str(n)) for n, verdict in enumerate(verdicts)]
    mirrored = [
        compared({"a": "b", "b": "a"}.get(v, v), str(n), "b", "a") if n % 2 else compared(v, str(n))
        for n, v in enumerate(verdicts)
    ]
    expected = {("answer a", "answer b"): (pytest.approx(margin), pytest.approx(margin))}
    assert pairs(said) == pairs(mirrored) == expected


def test_the_pairs_of_a_prompt_share_its_weight() -> None:
    made = pairs([compared("a"), compared("b", a="a", b="c"), compared("a", a="b", b="d")])
    assert {key: weight for key, (_, weight) in made.items()} == {
        ("answer a", "answer b"): pytest.approx(1 / 3),
        ("answer c", "answer a"): pytest.approx(1 / 3),
        ("answer b", "answer d"): pytest.approx(1 / 3),
    }


def test_both_bad_is_two_thumbs_down_and_nobody_is_counted_twice_for_one_answer() -> None:
    said = [compared("both_bad"), compared("both_bad", a="a", b="c"), compared("tie", a="b", b="c"), compared("a", "y")]
    made = build(said, ANSWERS, held_out=0)
    assert sorted((row["uid"], row["label"], row["weight"]) for row in made.rows) == [
        ("a", False, 1.0),
        ("b", False, 1.0),
        ("c", False, 1.0),
    ]
    assert made.became == {"comparison": {"both bad: two rows": 2, "ties": 1, "pairs": 1}}
    assert [(p["chosen_uid"], p["rejected_uid"], p["margin"]) for p in made.pairs] == [("a", "b", 0.5)]


def test_opposite_preferences_and_identical_texts_are_counted() -> None:
    twins = [ANSWERS[0], ANSWERS[1] | {"completion": "answer a"}, ANSWERS[2]]
    said = [compared("a"), compared("a", a="a", b="c"), compared("b", "y", a="a", b="c")]
    made = build(said, twins, held_out=0)
    assert made.pairs == []
    assert made.became == {"comparison": {"of identical texts": 1, "contradicted": 2}}


def test_ratings_pair_by_their_means_and_the_margin_is_a_share_of_the_scale() -> None:
    said = [rated("a", 5), rated("a", 4, "y"), rated("b", 3), rated("c", 1)]
    assert pairs(said) == {
        ("answer a", "answer b"): (pytest.approx(1.5 / 4), pytest.approx(1.5 / 12)),
        ("answer a", "answer c"): (pytest.approx(3.5 / 4), pytest.approx(3.5 / 12)),
        ("answer b", "answer c"): (pytest.approx(2 / 4), pytest.approx(2 / 12)),
    }


def test_ratings_from_4_are_thumbs_up_to_2_thumbs_down_and_3_is_neither() -> None:
    said = [rated("a", 5), rated("a", 4, "y"), rated("a", 2, "z"), rated("b", 3), rated("c", 1)]
    made = build(said, ANSWERS, held_out=0)
    assert sorted((row["uid"], row["label"], round(row["weight"], 3)) for row in made.rows) == [
        ("a", False, 0.333),
        ("a", True, 0.667),
        ("a", True, 0.667),
        ("c", False, 1.0),
    ]
    assert made.became == {"rating": {"pairs and rows": 4, "pairs": 1}}


def test_a_middle_rating_that_nothing_is_compared_with_is_said_to_teach_nothing() -> None:
    elsewhere = ANSWERS[1] | {"prompt_id": "q"}
    made = build([rated("a", 3), rated("b", 5)], [ANSWERS[0], elsewhere])
    assert made.became == {"rating": {"nothing to learn": 1, "rows": 1}}


def test_means_that_are_equal_in_the_third_are_equal() -> None:
    """Three ratings with the mean 13/3 on each side, whose floating-point sums of thirds may differ."""
    said = [rated(uid, r, str(n)) for uid, given in (("a", (5, 4, 4)), ("b", (4, 4, 5))) for n, r in enumerate(given)]
    assert pairs(said) == {}


def test_an_edit_is_chosen_over_the_original_and_is_a_demonstration() -> None:
    sampled = [ANSWERS[0] | {"ids": [1, 2], "finish": "length"}, ANSWERS[1]]
    said = [Edit(uid="a", annotator="x", text="better"), Edit(uid="b", annotator="x", text=" answer b\n")]
    made = build(said, sampled, held_out=0)
    (pair,) = made.pairs
    assert (pair["chosen"], pair["rejected"], pair["margin"], pair["weight"]) == ("better", "answer a", 1.0, 1.0)
    assert (pair["rejected_ids"], pair["rejected_finish"], pair.get("chosen_ids")) == ([1, 2], "length", None)
    assert [row["messages"][-1] for row in made.demonstrations] == [
        {"role": "assistant", "content": "better"},
        {"role": "assistant", "content": " answer b\n"},
    ]
    assert made.became == {"edit": {"pairs and demonstrations": 1, "demonstrations": 1}}


def test_a_persons_last_judgement_of_each_kind_counts() -> None:
    said: list[Judgement] = [compared("a"), compared("b"), rated("a", 1), rated("a", 5), rated("b", 3)]
    made = build(said, ANSWERS, held_out=0)
    assert {(p["kind"], p["chosen_uid"], p["rejected_uid"]) for p in made.pairs} == {
        ("comparison", "b", "a"),
        ("rating", "a", "b"),
    }
    assert made.became["comparison"] == {"replaced by a later one of the same person": 1, "pairs": 1}
    assert made.became["rating"]["replaced by a later one of the same person"] == 1


def test_a_comparison_with_an_answer_of_another_round_is_counted() -> None:
    made = build([compared("a"), compared("a", a="a", b="gone")], ANSWERS)
    assert made.became == {"comparison": {"about completions that are not known": 1, "pairs": 1}}


def test_nothing_about_these_completions_is_refused() -> None:
    with pytest.raises(FeedbackError, match="no judgement yet"):
        build([compared("a", a="gone", b="b")], ANSWERS)


def check_all_are_counted(said: list[Any]) -> None:
    made = build(said, ANSWERS, held_out=0)
    assert {kind: sum(found.values()) for kind, found in made.became.items()} == Counter(one.kind for one in said)
    assert all(0 < pair["margin"] <= 1 and pair["weight"] > 0 for pair in made.pairs)
    assert all(0 < row["weight"] <= 1 for row in made.rows)
    unused = {"nothing to learn", "ties", "contradicted", "of identical texts"}
    used = {f for found in made.became.values() for f in found if not f.startswith(("replaced", "about"))} - unused
    assert bool(used) == bool(made.pairs or made.rows or made.demonstrations)


@pytest.mark.parametrize("people", [1, 2, 3])
def test_every_set_of_verdicts_on_one_pair_adds_up(people: int) -> None:
    for verdicts in itertools.product(COMPARED, repeat=people):
        check_all_are_counted([compared(verdict, str(n)) for n, verdict in enumerate(verdicts)])


def test_every_set_of_ratings_of_two_answers_adds_up() -> None:
    for x, y, z in itertools.product(range(1, 6), repeat=3):
        check_all_are_counted([rated("a", x), rated("b", y), rated("b", z, "y")])


UIDS, PEOPLE = st.sampled_from("abcdz"), st.sampled_from("xyz")  # z is a completion of another round
ANY = st.one_of(
    st.builds(Thumb, uid=UIDS, annotator=PEOPLE, up=st.booleans()),
    st.builds(Rating, uid=UIDS, annotator=PEOPLE, rating=st.integers(1, 5)),
    st.builds(Edit, uid=UIDS, annotator=PEOPLE, text=st.sampled_from(["better", "answer a"])),
    st.builds(compared, st.sampled_from(COMPARED), PEOPLE, a=st.sampled_from("ab"), b=st.sampled_from("cdz")),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(ANY, min_size=1, max_size=25))
def test_any_judgements_add_up(said: list[Any]) -> None:
    if any("z" not in one.about for one in said):
        check_all_are_counted(said)
