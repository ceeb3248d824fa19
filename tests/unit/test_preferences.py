"""Thumbs become pairs and rows; expected values are counted by hand."""

import itertools

import pytest

from trueup.errors import FeedbackError
from trueup.feedback.preferences import Vote, build, kto_weights, split_prompts


def completion(uid: str, prompt_id: str = "p", text: str | None = None) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt_id}]
    return {"uid": uid, "prompt_id": prompt_id, "messages": messages, "completion": text or f"answer {uid}"}


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


def test_identical_texts_never_pair() -> None:
    votes = [Vote("a", "x", True), Vote("b", "x", False)]
    dataset = build(votes, [completion("a", text="same"), completion("b", text="same")])
    assert dataset.pairs == []
    assert dataset.counts["pairs_of_identical_texts"] == 1


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
    with pytest.raises(FeedbackError, match="no thumbs yet"):
        build([], [])


@pytest.mark.parametrize(("ups", "downs"), [(10, 90), (50, 50), (60, 50), (90, 10), (1, 1)])
def test_kto_weights_keep_the_ratio_of_the_paper(ups: int, downs: int) -> None:
    desirable, undesirable = kto_weights(ups, downs)
    assert 1 - 1e-9 <= desirable * ups / (undesirable * downs) <= 4 / 3 + 1e-9


def test_only_thumbs_up_cannot_train_kto() -> None:
    with pytest.raises(FeedbackError, match="5 thumbs up, 0 down"):
        kto_weights(5, 0)
