"""Who is asked what: the overlap, gold and repetitions, and what becomes of their judgements."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from trueup.errors import ConfigError, DataError
from trueup.feedback import checks
from trueup.feedback.adjudication import disputed, settle
from trueup.feedback.annotations import parse
from trueup.feedback.asking import EVERYBODY, asking, drawn
from trueup.feedback.examples import build
from trueup.feedback.gold import Gold, is_right
from trueup.feedback.judgement import Comparison, Judgement, Rating, Thumb, from_row, to_row
from trueup.feedback.qualification import Qualification
from trueup.feedback.questions import questions
from trueup.feedback.store import Store
from trueup.run.artifacts import write_jsonl
from trueup.run.run_file import load
from trueup.run.stage import Context
from trueup.stages import STAGES, collect


def answers(num_prompts: int, each: int) -> list[dict[str, Any]]:
    return [
        {"uid": f"{p}-{n}", "prompt_id": str(p), "messages": [{"role": "user", "content": f"q{p}"}]}
        | {"completion": f"answer {n} to {p}", "finish": "eos"}
        for p in range(num_prompts)
        for n in range(each)
    ]


def gold_of(folder: Path, rows: list[dict[str, Any]], interface: str = "thumbs") -> Gold:
    """The gold questions of a file beside a run file."""
    write_jsonl(folder / "gold.jsonl", rows)
    (folder / "run.yaml").write_text("name: gold\n")
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
    config = collect.Config.model_validate({"gold": "gold.jsonl", "interface": interface})
    return collect.read_gold(config, Context(run=run, run_dir=folder / "runs" / "gold", out=folder))


THUMBS = [{"prompt": f"g{n}", "completion": f"gold {n}", "label": n % 2 == 0} for n in range(10)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_a_share_is_drawn_by_the_seed_and_stays_when_names_join(share: float) -> None:
    names = [str(n) for n in range(50)]
    first = drawn(names, share, 1)
    assert len(first) == round(50 * share) and set(first) <= set(names)
    assert first == drawn(reversed(names), share, 1)
    assert share in (0, 1) or set(first) != set(drawn(names, share, 2))
    for seed in range(1, 10):
        first = drawn(names, share, seed)
        more = drawn([*(f"new {n}" for n in range(50)), *names], share, seed, kept=first)
        assert set(first) <= set(more) and len(more) == round(100 * share)
    assert set(drawn(names, share / 2, 1, kept=drawn(names, share, 1))) <= set(drawn(names, share, 1))


def test_an_overlap_is_of_whole_prompts() -> None:
    asked = asking(questions(answers(20, 3), "thumbs", 0), 1, 0, overlap=(0.2, 3))
    assert Counter(asked.people.values()) == {1: 48, 3: 12}
    assert len({uid.partition("-")[0] for uid, people in asked.people.items() if people == 3}) == 4
    assert asked.people_of_all == asked.people


@pytest.mark.parametrize("interface", ["thumbs", "rating", "pairwise"])
def test_gold_and_repetitions_look_like_all_others_and_are_apart(interface: str, tmp_path: Path) -> None:
    pairs = [{"prompt": f"g{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(10)]
    gold = gold_of(tmp_path, pairs if interface == "pairwise" else THUMBS, interface)
    plain = questions(answers(20, 3), interface, 0)
    asked = asking(plain, 1, 0, overlap=(0.2, 3), repeated_share=0.1, gold=gold)
    assert len(asked.tasks) == 60 + 10 + 6
    assert len({frozenset(task["data"]) for task in asked.tasks}) == 1  # no field tells one kind from another
    assert [task["data"]["place"] for task in asked.tasks][::75] == ["1 of 76", "76 of 76"]
    order = [task["data"]["uid"] for task in asked.tasks]
    assert len(set(order)) == 76 and [uid for uid in order if uid in asked.people] == plain.uids
    assert all(order.index(again) > order.index(of) for again, of in asked.repeated.items())
    assert {asked.people_of_all[uid] for uid in asked.right} == {EVERYBODY}
    assert {asked.people_of_all[uid] for uid in asked.repeated} == {3}  # rather of what several people judge
    data = {task["data"]["uid"]: task["data"] for task in asked.tasks}
    shown = [{field: data[uid].get(field) for field in ("a", "b", "response", "messages")} for uid in data]
    if interface == "pairwise":
        for again, of in asked.repeated.items():
            assert (data[again]["a"], data[again]["uid_b"]) == (data[of]["b"], data[of]["uid_a"])
        better = {data[uid]["a"] if asked.right[uid] == data[uid]["uid_a"] else data[uid]["b"] for uid in asked.right}
        assert better == {f"good {n}" for n in range(10)}
        assert len({asked.right[uid] == data[uid]["uid_a"] for uid in asked.right}) == 2  # on either side
    assert not [one for one in shown if "label" in one or "right" in one]
    assert asked.drawn["overlap"] and asking(plain, 1, 0, before=asked.drawn).repeated == {}


def said(uid: str, who: str, up: bool, **more: Any) -> Thumb:
    return Thumb(uid=uid, annotator=who, up=up, annotation_id=1, **more)


def test_figures_of_gold_and_of_repetitions_are_those_of_scipy(tmp_path: Path) -> None:
    gold = gold_of(tmp_path, THUMBS)
    asked = {"right": gold.right, "repeated": {f"r{n}": f"q{n}" for n in range(5)}}
    right = {uid: answer == "up" for uid, answer in gold.right.items()}
    lines = [to_row(said(uid, "a", up if n < 7 else not up)) for n, (uid, up) in enumerate(right.items())]
    lines += [to_row(said(f"q{n}", "a", True)) for n in range(4)] + [to_row(said("q4", "b", True))]
    lines += [to_row(said(f"r{n}", "a", n < 3)) for n in range(5)]
    rows, apart = checks.set_apart([row | {"project": "k"} for row in lines], asked)
    assert ({row["uid"] for row in rows}, len(apart)) == ({f"q{n}" for n in range(5)}, 15)
    found = checks.figures(apart, [one for row in rows for one in from_row(row)])
    interval = binomtest(7, 10).proportion_ci(0.95, method="wilson")
    assert found["gold"]["people"]["a"] == found["gold"]["all"]
    assert found["gold"]["all"] == pytest.approx(
        {"estimate": 0.7, "low": interval.low, "high": interval.high, "num": 10}
    )
    assert (found["repeated"]["all"]["estimate"], found["repeated"]["all"]["num"]) == (0.75, 4)
    assert found["repeated"]["num_by_others"] == 1
    assert checks.figures([], []) == {}


@pytest.mark.parametrize(
    ("one", "right", "is_it"),
    [
        (Rating(uid="u", annotator="a", rating=4), "up", True),
        (Rating(uid="u", annotator="a", rating=3), "up", False),
        (Rating(uid="u", annotator="a", rating=3), "down", False),
        (Rating(uid="u", annotator="a", rating=2), "down", True),
        (Comparison(uid="u", annotator="a", a="x", b="y", preferred="b"), "y", True),
        (Comparison(uid="u", annotator="a", a="y", b="x", preferred="b"), "y", False),
        (Comparison(uid="u", annotator="a", a="x", b="y", preferred="tie"), "y", False),
    ],
)
def test_what_is_right(one: Judgement, right: str, is_it: bool) -> None:
    assert is_right(one, right) is is_it


def test_gold_that_says_nothing_clear_is_refused_with_every_reason(tmp_path: Path) -> None:
    for rows, interface, found in (
        (THUMBS, "pairwise", "10 rows that are no pairs"),
        ([*THUMBS, {"prompt": "g0", "completion": "gold 0", "label": False}], "thumbs", "1 questions with two right"),
        ([{"prompt": "g", "chosen": "x", "rejected": "y"}], "rating", "1 rows that are pairs, and no thumbs"),
        (THUMBS, "edit", "to which there is no right answer"),
    ):
        with pytest.raises(ConfigError, match=found):
            gold_of(tmp_path, rows, interface)
    with pytest.raises(DataError, match=r"gold\.jsonl.*no rows"):
        gold_of(tmp_path, [])


def test_the_store_remembers_what_was_gold_after_the_file_changed(tmp_path: Path) -> None:
    store, gold = Store(tmp_path), gold_of(tmp_path, THUMBS)
    plain = questions(answers(4, 2), "thumbs", 0)
    store.remember_asked(asking(plain, 1, 0).drawn)
    assert not (tmp_path / "asked.json").exists()
    store.remember_asked(asking(plain, 1, 0, gold=gold, repeated_share=0.5).drawn)
    store.remember_asked(asking(plain, 1, 0, before=store.asked()).drawn)
    assert (store.asked()["right"], len(store.asked()["repeated"])) == (gold.right, 4)


def test_who_is_qualified(tmp_path: Path) -> None:
    gold = gold_of(tmp_path, THUMBS)
    right = {uid: answer == "up" for uid, answer in gold.right.items()}
    all_but = {"five": 5, "eight": 8, "seven": 7, "none": 0}
    votes: list[Judgement] = [said("q", who, True) for who in all_but]
    for who, hits in all_but.items():
        judged = list(right.items())[: 9 if who == "none" else 10]
        votes += [said(uid, who, up if n < hits else not up) for n, (uid, up) in enumerate(judged)]
    assert Qualification(gold.right, 10, 0.8).lacking(votes) == {
        "five": "5 of 10 gold questions right, expected 80%",
        "seven": "7 of 10 gold questions right, expected 80%",
        "none": "9 of 10 gold questions judged",
    }
    first = asking(questions(answers(100, 2), "thumbs", 0), 1, 0, gold=gold, gold_among=20)
    order = [task["data"]["uid"] for task in first.tasks]
    assert max(order.index(uid) for uid in gold.right) < 30


def test_what_people_dispute() -> None:
    def rated(uid: str, *ratings: int) -> list[Judgement]:
        return [Rating(uid=uid, annotator=str(n), rating=rating) for n, rating in enumerate(ratings)]

    assert disputed([*rated("same", 3, 3), *rated("near", 3, 4), *rated("far", 2, 4), *rated("more", 1, 4, 5)]) == [
        "more",
        "far",
    ]
    both = [said("u", "a", True), said("u", "b", False), said("u", "b", True)]
    assert disputed(both) == []  # b had another mind later
    assert disputed([*both[:2], said("v", "a", True)]) == ["u"]


def test_an_adjudicated_verdict_wins_in_pairs_and_everything_is_counted() -> None:
    known = answers(1, 3)
    votes: list[Judgement] = [
        *(said("0-0", who, who == "a") for who in "abc"),  # a alone likes the first
        *(said("0-1", who, True) for who in "abc"),
        *(said("0-2", who, False) for who in "abc"),
        said("0-0", "judge", True, adjudicated=True),
    ]
    settled, counts = settle(votes)
    assert counts == {"adjudicated": 1, "upheld_by_adjudication": 1, "overruled_by_adjudication": 2}
    made = build(settled, known)
    margins = {(pair["chosen_uid"], pair["rejected_uid"]): pair["margin"] for pair in made.pairs}
    assert margins == {("0-0", "0-2"): 1.0, ("0-1", "0-2"): 1.0}
    assert sum(made.became["thumb"].values()) == 10
    assert settle(votes[:-1]) == (votes[:-1], {})
    assert build(votes[:-1], known).pairs != made.pairs


def test_an_adjudicated_comparison_holds_whatever_side_it_was_on() -> None:
    votes: list[Judgement] = [
        Comparison(uid="p", annotator="a", a="0-0", b="0-1", preferred="a"),
        Comparison(uid="p", annotator="b", a="0-0", b="0-1", preferred="b"),
        Comparison(uid="p", annotator="judge", a="0-1", b="0-0", preferred="a", adjudicated=True),
    ]
    settled, counts = settle(votes)
    assert [one.preferred for one in settled if isinstance(one, Comparison)] == ["b", "b", "a"]
    assert (counts["upheld_by_adjudication"], counts["overruled_by_adjudication"]) == (1, 1)
    (pair,) = build(settled, answers(1, 2)).pairs
    assert (pair["chosen_uid"], pair["margin"]) == ("0-1", 1.0)


def test_lines_say_that_a_verdict_was_adjudicated_and_old_lines_are_read() -> None:
    verdict = said("u", "judge", True, adjudicated=True)
    assert from_row(to_row(verdict)) == [verdict]
    assert "adjudicated" not in to_row(said("u", "a", True))
    assert [one.adjudicated for one in from_row({"uid": "u", "annotator": "1", "up": True})] == [False]
    with pytest.raises(ValueError, match="adjudicated is 1"):
        from_row({"kind": "thumb", "uid": "u", "annotator": "1", "up": True, "adjudicated": 1})


def test_a_repetition_is_no_second_vote() -> None:
    plain = questions(answers(5, 2), "pairwise", 0)
    asked = asking(plain, 1, 0, repeated_share=1.0)
    lines = []
    for number, task in enumerate(asked.tasks):
        result = [{"from_name": "preference", "value": {"choices": ["a"]}}]
        good, _ = parse(
            task | {"id": number, "annotations": [{"id": number, "completed_by": 1, "result": result}]}, "pairwise"
        )
        lines += [to_row(one) for one in good]
    rows, apart = checks.set_apart(lines, asked.drawn)
    assert (len(rows), len(apart)) == (5, 5)
    assert {pair["margin"] for pair in build([one for row in rows for one in from_row(row)], answers(5, 2)).pairs} == {
        1.0
    }
    again = checks.figures(apart, [one for row in rows for one in from_row(row)])["repeated"]
    assert again["all"]["estimate"] == 0.0  # always side A, whichever answer is there
