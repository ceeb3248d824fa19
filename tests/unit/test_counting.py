"""How much pairs and thumbs count, and what became of each; expected values are by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trueup.errors import FeedbackError
from trueup.run.artifacts import Feedback, write_jsonl
from trueup.training import counting

UPS_AND_DOWNS = [True, False] * 10


def thumbs(**of: list[bool]) -> list[dict[str, Any]]:
    return [{"annotator": who, "label": up, "uid": f"{who}{n}"} for who, ups in of.items() for n, up in enumerate(ups)]


@pytest.mark.parametrize(
    ("how", "weight", "scale", "soft"),
    [("weight", 0.1, 1.0, 1.0), ("scale", 0.5, 0.2, 1.0), ("soft", 0.5, 1.0, 0.6)],
)
def test_three_against_two_of_one_of_two_pairs(how: Any, weight: float, scale: float, soft: float) -> None:
    (found,) = counting.disputed([{"weight": 0.1, "margin": 0.2}], how)  # 2 x 3/5 - 1, and half of the prompt's weight
    assert [found[key] for key in ("weight", "scale", "soft")] == pytest.approx([weight, scale, soft])


@pytest.mark.parametrize("how", ["weight", "scale", "soft"])
def test_pairs_on_which_all_agree_and_those_of_earlier_versions_count_whole(how: Any) -> None:
    for pair in ({"weight": 0.5, "margin": 1.0}, {"weight": 0.5}):
        (found,) = counting.disputed([pair], how)
        assert (found["weight"], found["scale"], found["soft"]) == (0.5, 1.0, 1.0)


def test_twenty_thumbs_of_both_kinds_make_a_threshold_of_ones_own() -> None:
    said = thumbs(ann=UPS_AND_DOWNS, bob=UPS_AND_DOWNS[:-1], eve=[True] * 30, zoe=UPS_AND_DOWNS)
    rows, people = counting.single(said, 0.3)
    assert people == ["ann", "zoe", counting.OTHERS]
    assert {row["annotator"]: row["person"] for row in rows} == {"ann": 0, "bob": 2, "eve": 2, "zoe": 1}
    assert {row["weight"] for row in rows} == {0.3}
    assert [row["up"] for row in rows] == [int(row["label"]) for row in said]


def test_voters_of_a_file_who_are_nobody_share_one_threshold() -> None:
    rows, people = counting.single(thumbs(**{f"{n}.0": [n % 2 == 0] for n in range(50)}), 1.0)
    assert people == [counting.OTHERS] and {row["person"] for row in rows} == {0}


def test_nobody_has_a_threshold_without_thumbs() -> None:
    assert counting.single([], 1.0) == ([], [])


def test_sides_of_comparisons_and_thumbs_of_earlier_versions_are_set_aside_and_counted() -> None:
    rows: list[dict[str, Any]] = [{"kind": kind, "annotator": "x"} for kind in ("thumb", "comparison", "rating")]
    rows += [{"kind": "thumb"}, {}]  # they may be sides of pairs from a file
    assert counting.thumbs_in(rows) == [rows[0], rows[2]]
    assert counting.no_thumbs(rows) == {"a side of a comparison": 1, "of a snapshot that does not say who gave it": 2}


@pytest.mark.parametrize(("labels", "said"), [([], "no pairs to train on"), ([True, True], "only thumbs up")])
def test_what_tells_nothing_apart_is_refused(labels: list[bool], said: str) -> None:
    with pytest.raises(FeedbackError, match=said):
        counting.refuse_one_sided([], thumbs(x=labels))


def test_thumbs_of_both_kinds_need_no_pair() -> None:
    counting.refuse_one_sided([], thumbs(x=[True, False]))


def test_every_pair_and_every_thumb_is_counted_once() -> None:
    pairs = [{"chosen_uid": "x0", "rejected_uid": "x1"}, {"chosen_uid": "x2", "rejected_uid": "x1"}]
    said = thumbs(x=[True, False, True, True])
    paired = [{"id": "prompt/0"}]  # the second is too long
    aside = {"pairs": {"held out": 3}, "thumbs": {"held out": 5}}
    found = counting.became(pairs, said, paired, [{"id": "prompt/thumb 1"}, {"id": "prompt/thumb 2"}], aside)
    assert found["pairs"] == {"trained": 1, "left out": 1, "held out": 3}
    assert found["thumbs"] == {
        "a pair": 1,  # x0
        "a pair and a thumb": 1,  # x1
        "a thumb": 1,  # x2
        "nothing": 1,  # x3
        "held out": 5,
    }
    assert sum(found["pairs"].values()) == len(pairs) + 3 and sum(found["thumbs"].values()) == len(said) + 5


def pair(prompt: str, chosen: str, rejected: str, split: str = "train") -> dict[str, Any]:
    of = {"prompt_id": prompt, "split": split, "prompt": [{"role": "user", "content": prompt}]}
    return of | {"chosen": chosen, "rejected": rejected, "weight": 1.0, "margin": 1.0, "kind": "comparison"}


def round_of(folder: Path, *pairs: dict[str, Any]) -> Feedback:
    folder.mkdir()
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(folder / "rows.jsonl", [])
    return Feedback(folder)


def test_of_several_rounds_the_last_word_counts_and_nothing_that_is_held_out_trains(tmp_path: Path) -> None:
    first = (pair("a", "x", "y"), pair("b", "x", "y"), pair("c", "x", "y"), pair("d", "x", "y", "held_out"))
    second = (pair("a", "z", "y"), pair("b", "y", "x"), pair("e", "x", "y"))
    last = (pair("e", "x", "y"), pair("f", "x", "y"), pair("c", "u", "v", "held_out"))
    rounds = [round_of(tmp_path / name, *pairs) for name, pairs in zip("123", (first, second, last), strict=True)]
    found, counts = counting.of_rounds(rounds)
    told = [(one["prompt_id"], one["chosen"], one["rejected"]) for one in found]
    assert told == [("a", "x", "y"), ("b", "y", "x"), ("a", "z", "y"), ("e", "x", "y"), ("f", "x", "y")]
    assert counts == {"earlier": 3, "held_out_now": 1, "compared_again": 2}
    assert counting.of_rounds(rounds[-1:]) == (list(last[:2]), dict.fromkeys(counts, 0))
