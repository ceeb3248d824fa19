"""Thumbs become pairs and rows; expected values are counted by hand."""

import itertools
from typing import Any

import pytest

from trueup.errors import FeedbackError
from trueup.feedback import examples
from trueup.feedback.judgement import Thumb
from trueup.feedback.preferences import kto_weights, split_prompts
from trueup.feedback.votes import Vote


def completion(uid: str, prompt_id: str = "p", text: str | None = None) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt_id}]
    return {"uid": uid, "prompt_id": prompt_id, "messages": messages, "completion": text or f"answer {uid}"}


def build(votes: list[Vote], completions: list[dict[str, object]], **more: Any) -> examples.Dataset:
    thumbs = [Thumb(uid=vote.uid, annotator=vote.annotator, up=vote.up) for vote in votes]
    return examples.build(thumbs, completions, **more)


def test_two_ups_and_one_down_make_two_pairs_weighing_a_half_each() -> None:
    votes = [Vote("a", "x", True), Vote("b", "x", True), Vote("c", "x", False)]
    pairs = build(votes, [completion(u) for u in "abc"]).pairs
    assert [(p["chosen_uid"], p["rejected_uid"], p["weight"]) for p in pairs] == [("a", "c", 0.5), ("b", "c", 0.5)]


def test_pairs_within_one_annotator_are_preferred() -> None:
    votes = [Vote("a", "x", True), Vote("b", "x", False), Vote("c", "y", False)]
    pairs = build(votes, [completion(u) for u in "abc"]).pairs
    assert [(p["chosen_uid"], p["rejected_uid"]) for p in pairs] == [("a", "b")]


def test_opposite_verdicts_cancel_and_are_counted() -> None:
    votes = [Vote("a", "x", True), Vote("b", "x", False), Vote("a", "y", False), Vote("b", "y", True)]
    dataset = build(votes, [completion(u) for u in "ab"])
    assert dataset.pairs == []
    assert dataset.counts["pairs_contradicted"] == 2
    assert [row["weight"] for row in dataset.rows] == [0.5] * 4


def margins(votes: list[Vote]) -> dict[tuple[str, str], tuple[float, float]]:
    """(margin, weight) of each pair, by (chosen, rejected)."""
    pairs = build(votes, [completion(u) for u in "abcd"], held_out=0).pairs
    return {(p["chosen_uid"], p["rejected_uid"]): (p["margin"], p["weight"]) for p in pairs}


@pytest.mark.parametrize(("votes_for", "against", "margin"), [(5, 0, 1.0), (4, 1, 0.6), (3, 2, 0.2)])
def test_a_pair_weighs_its_majority_as_a_share_of_the_votes(votes_for: int, against: int, margin: float) -> None:
    people = range(votes_for + against)
    votes = [Vote("a", str(n), n < votes_for) for n in people] + [Vote("b", str(n), n >= votes_for) for n in people]
    assert margins(votes) == {("a", "b"): pytest.approx((margin, margin))}


def test_who_gave_both_answers_the_same_thumb_counts_half_for_each() -> None:
    votes = [Vote("a", "x", True), Vote("b", "x", False)] + [Vote(u, y, True) for u in "ab" for y in "stuv"]
    assert margins(votes) == {("a", "b"): pytest.approx((0.2, 0.2))}  # 2 x (1 + 4 / 2) / 5 - 1


def test_where_nobody_judged_both_the_shares_of_thumbs_up_are_compared() -> None:
    votes = [Vote("a", "x", True), Vote("a", "y", True), Vote("a", "z", False), Vote("b", "w", False)]
    assert margins(votes) == {("a", "b"): pytest.approx((2 / 3, 2 / 3))}


def test_a_persons_last_verdict_replaces_the_earlier_one_in_pairs_and_rows() -> None:
    votes = [Vote("a", "x", False), Vote("b", "x", True), Vote("a", "x", True), Vote("b", "x", False)]
    dataset = build(votes, [completion(u) for u in "ab"])
    assert [(p["chosen_uid"], p["rejected_uid"], p["weight"]) for p in dataset.pairs] == [("a", "b", 1.0)]
    assert [(r["uid"], r["label"], r["weight"]) for r in dataset.rows] == [("a", True, 1.0), ("b", False, 1.0)]
    assert dataset.counts["votes_replaced_by_a_later_one"] == 2
    assert dataset.counts["completions_disputed"] == 0


@pytest.mark.parametrize(
    ("thumbs", "why"),
    [
        ({"a": True, "b": True}, "prompts_with_thumbs_up_only"),
        ({"a": False, "b": False}, "prompts_with_thumbs_down_only"),
        ({"a": True}, "prompts_with_one_judged_answer"),
    ],
)
def test_a_prompt_without_pairs_is_counted_with_the_reason(thumbs: dict[str, bool], why: str) -> None:
    votes = [Vote(uid, "x", up) for uid, up in thumbs.items()] + [Vote("c", "x", True), Vote("d", "x", False)]
    rows = [completion("a"), completion("b"), completion("c", "q"), completion("d", "q")]
    counts = build(votes, rows).counts
    assert (counts["prompts_without_pairs"], counts[why], counts["pairs"]) == (1, 1, 1)


def test_identical_texts_never_pair() -> None:
    votes = [Vote("a", "x", True), Vote("b", "x", False)]
    dataset = build(votes, [completion("a", text="same"), completion("b", text="same")])
    assert dataset.pairs == []
    assert dataset.counts["pairs_of_identical_texts"] == 1
    assert dataset.counts["prompts_of_identical_texts"] == 1


def test_every_vote_becomes_a_row_and_neighbours_do_not_share_a_prompt() -> None:
    names = [f"{p}{i}" for p in "pqr" for i in range(2)]
    votes = [Vote(name, "x", name.endswith("0")) for name in names]
    rows = build(votes, [completion(name, name[0]) for name in names]).rows
    assert len(rows) == 6
    assert all(a["prompt_id"] != b["prompt_id"] for a, b in itertools.pairwise(rows))


def test_a_vote_on_an_unknown_completion_is_counted() -> None:
    dataset = build([Vote("a", "x", True), Vote("gone", "x", True)], [completion("a")])
    assert dataset.counts["votes_on_unknown_completions"] == 1


def test_no_prompt_is_on_both_sides_of_the_split() -> None:
    splits = split_prompts([str(i) for i in range(40)], 0.15, seed=3)
    assert sorted(splits.values()).count("held_out") == 6


def test_no_thumbs_say_what_to_do() -> None:
    with pytest.raises(FeedbackError, match="no judgement yet"):
        build([], [])
    with pytest.raises(FeedbackError, match="no judgement yet"):
        build([Vote("of another round", "x", True)], [completion("a")])


@pytest.mark.parametrize(("ups", "downs"), [(10, 90), (50, 50), (60, 50), (90, 10), (1, 1)])
def test_kto_weights_keep_the_ratio_of_the_paper(ups: int, downs: int) -> None:
    desirable, undesirable = kto_weights(ups, downs)
    assert 1 - 1e-9 <= desirable * ups / (undesirable * downs) <= 4 / 3 + 1e-9


def test_only_thumbs_up_cannot_train_kto() -> None:
    with pytest.raises(FeedbackError, match="5 thumbs up, 0 down"):
        kto_weights(5, 0)
