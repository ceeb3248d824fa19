"""Which questions people are asked, on which side an answer is, and what their screens say."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trueup.errors import ServerError
from trueup.feedback import keys
from trueup.feedback.judgement import Comparison, Thumb, to_row
from trueup.feedback.questions import pairs, questions
from trueup.feedback.screens import screen, version
from trueup.feedback.tasks import CUT
from trueup.run.artifacts import write_jsonl
from trueup.stages import sample

SCREENS = ("thumbs", "pairwise", "rating", "edit")


def answers(num_prompts: int, each: int) -> list[dict[str, Any]]:
    return [
        {"uid": f"{p}-{n}", "prompt_id": str(p), "messages": [{"role": "user", "content": f"q{p}"}]}
        | {"completion": f"answer {n} to {p}", "finish": "length" if n == 0 else "eos"}
        for p in range(num_prompts)
        for n in range(each)
    ]


@pytest.mark.parametrize("each", [3, 4, 7])
def test_each_answer_is_compared_twice_once_on_either_side(each: int) -> None:
    asked, not_asked = pairs(answers(20, each), seed=3)
    assert not_asked == {}
    everyone = {f"{p}-{n}" for p in range(20) for n in range(each)}
    assert Counter(a["uid"] for a, _ in asked) == Counter(b["uid"] for _, b in asked) == Counter(everyone)
    assert all(a["prompt_id"] == b["prompt_id"] for a, b in asked)
    assert len({frozenset((a["uid"], b["uid"])) for a, b in asked}) == len(asked) == 20 * each


@pytest.mark.parametrize("seed", range(5))
def test_of_two_answers_there_is_one_question_and_half_of_the_sides_are_turned(seed: int) -> None:
    asked, _ = pairs(answers(40, 2), seed)
    assert sorted(a["prompt_id"] for a, _ in asked) == sorted(map(str, range(40)))
    assert Counter(a["uid"][-1] for a, _ in asked) == {"0": 20, "1": 20}
    assert asked == pairs(answers(40, 2), seed)[0]
    assert asked != pairs(answers(40, 2), seed + 1)[0]


def test_equal_texts_are_not_compared_and_are_counted() -> None:
    rows = answers(1, 4) + answers(2, 1)[1:]
    rows[1]["completion"] = rows[0]["completion"]
    asked, not_asked = pairs(rows, 0)
    assert Counter(row["uid"] for pair in asked for row in pair) == {"0-0": 2, "0-2": 2, "0-3": 2}
    assert not_asked == {"same text as another": 1, "alone": 1}


def test_a_question_about_a_pair_says_nothing_of_who_is_who_but_where_each_is_shown() -> None:
    made = questions(answers(1, 2), "pairwise", 0)
    (task,) = made.tasks
    data = task["data"]
    assert set(data) == {"uid", "messages", "a", "b", "uid_a", "uid_b", "cut_a", "cut_b", "place"}
    for side in "ab":
        number = data[f"uid_{side}"][-1]
        assert (data[side], data[f"cut_{side}"]) == (f"answer {number} to 0", CUT if number == "0" else "")
    both = [questions(answers(2, 2), "pairwise", seed).tasks[0]["data"] for seed in range(20)]
    assert {one["uid_a"] for one in both} == {"0-0", "0-1"}
    assert {one["uid"] for one in both} == {data["uid"]}  # the same question, whichever side an answer is on


@pytest.mark.parametrize("interface", ["thumbs", "rating", "edit"])
def test_of_single_answers_each_is_asked_about_and_says_its_place(interface: str) -> None:
    made = questions(answers(2, 2), interface, 0)
    assert made.uids == ["0-0", "0-1", "1-0", "1-1"]
    assert [task["data"]["place"] for task in made.tasks] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]


def test_completions_that_were_compared_count_as_judged(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write_jsonl(tmp_path / "completions.jsonl", answers(1, 4))
    said = [
        Comparison(uid="pair", annotator="x", a="0-0", b="0-1", preferred="tie"),
        Thumb(uid="0-1", annotator="x", up=True),
        Thumb(uid="of another round", annotator="x", up=True),
    ]
    write_jsonl(tmp_path / "store" / "annotations.jsonl", map(to_row, said))
    assert sample.judged(tmp_path, tmp_path) == 2


@pytest.mark.parametrize("interface", SCREENS)
@pytest.mark.parametrize("guidelines", ["", 'Be <b>fair</b> & "kind".\nAlways.'])
def test_a_screen_is_well_formed_and_shows_what_its_tasks_hold(interface: str, guidelines: str) -> None:
    root = ElementTree.fromstring(screen(interface, guidelines))
    names = {tag.attrib.get("name") for tag in root.iter()}
    data = questions(answers(1, 2), interface, 0).tasks[0]["data"]
    fields = {value[1:].partition("[")[0] for tag in root.iter() for value in tag.attrib.values() if value[:1] == "$"}
    assert fields == {name for name in data if not name.startswith("uid")}
    assert ("guidelines" in names) == bool(guidelines)
    told = [value for tag in root.iter() for value in tag.attrib.values() if "fair" in value]
    assert told == ([guidelines] if guidelines else [])
    assert all(tag.attrib["toName"] in names for tag in root.iter() if "toName" in tag.attrib)
    hotkeys = [tag.attrib["hotkey"] for tag in root.iter() if "hotkey" in tag.attrib]
    assert len(hotkeys) == len(set(hotkeys))
    assert not [c for c in screen(interface, guidelines) if ord(c) > 0xFFFF], (
        "no emoji, for which a font may be missing"
    )


def test_guidelines_never_name_a_variable_of_the_task() -> None:
    root = ElementTree.fromstring(screen("thumbs", "$response or $5: which?"))
    (told,) = [value for tag in root.iter() for value in tag.attrib.values() if "which?" in value]
    assert told == "$\u2060response or $\u20605: which?"


def test_other_guidelines_are_another_version() -> None:
    assert version("") == ""
    assert len({version("a"), version("b"), version("a\n")}) == 3


def test_the_keys_are_put_into_the_page_once_and_the_shared_file_is_not_touched(tmp_path: Path) -> None:
    cached = tmp_path / "cached.html"
    cached.write_text("<html><head><title>x</title></head><body></head></body></html>")
    page = tmp_path / "lib/python3.11/site-packages/label_studio/templates/base.html"
    page.parent.mkdir(parents=True)
    page.hardlink_to(cached)
    keys.install(tmp_path)
    first = page.read_text()
    keys.install(tmp_path)
    assert page.read_text() == first
    assert first.count("<script") == 1
    assert first.index("<script") < first.index("</head>")
    assert "data-from" not in cached.read_text()
    page.write_text(first.replace("box.blur();", "older();"))
    keys.install(tmp_path)
    assert page.read_text() == first
    assert list(page.parent.iterdir()) == [page]


def test_a_label_studio_without_its_page_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="without its page template"):
        keys.install(tmp_path)
