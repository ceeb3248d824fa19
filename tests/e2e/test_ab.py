"""People compare in a real Label Studio, not knowing whose answer is whose, until the answer to the goal is known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trueup.demo.simulate import sign_up
from trueup.evaluation import sequential
from trueup.feedback.api import Api
from trueup.feedback.connection import connect
from trueup.feedback.project import Project
from trueup.judges import people
from trueup.judges.people import People
from trueup.judges.protocol import Answer, Question
from trueup.run.run_file import LabelStudioConfig
from trueup.run.stage import Waiting

NUM = 24


def questions() -> list[Question]:
    """Aligned answers first. One prompt has two answers of one text, and one is asked twice."""
    asked = [
        Question(f"p{n}", [{"role": "user", "content": f"question {n}"}], Answer(f"good {n}"), Answer(f"bad {n}"))
        for n in range(NUM - 1)
    ]
    same = Question("same", [{"role": "user", "content": "same"}], Answer("so"), Answer("so"))
    again = Question("p0", [{"role": "user", "content": "question 0"}], Answer("good again"), Answer("bad again"))
    return [*asked, same, again]


class AB:
    """An A/B that waits for nobody, and somebody who answers it."""

    def __init__(self, folder: Path, labelstudio: Path, **more: Any) -> None:
        settings = LabelStudioConfig(url=connect(labelstudio).url, data_dir=labelstudio)
        self.folder = folder / "ab" / "round-1"
        self.judge = People(settings, self.folder, f"ab {folder.name}", **({"wanted": 0.5} | more))
        self.api = Api(sign_up(connect(labelstudio), "somebody"))

    def tasks(self) -> list[dict[str, Any]]:
        project = Project(self.judge.settings, self.folder, "pairwise")
        assert project.known is not None
        return sorted(project.client.pull(project.known[0]), key=lambda task: task["id"])

    def say(self, task: dict[str, Any], preferred: str) -> None:
        result = [
            {"from_name": "preference", "to_name": "response", "type": "choices", "value": {"choices": [preferred]}}
        ]
        self.api.send("voting", lambda sdk: sdk.annotations.create(id=int(task["id"]), result=result, lead_time=1.0))


def test_they_are_asked_no_longer_than_the_answer_takes(labelstudio: Path, tmp_path: Path) -> None:
    ab, asked = AB(tmp_path, labelstudio), questions()
    with pytest.raises(Waiting) as waiting:
        ab.judge.judge(asked)
    assert waiting.value.labelled == 0
    tasks = ab.tasks()
    assert len(tasks) == NUM - 1
    assert "same" not in json.dumps([task["data"]["messages"] for task in tasks])
    sides = Counter(task["data"]["a"].split()[0] for task in tasks)
    assert abs(sides["good"] - sides["bad"]) <= 1
    assert [task["data"]["messages"][-1]["content"] for task in tasks] != [f"question {n}" for n in range(NUM - 1)]
    for task in tasks:  # whose answer it is shows in nothing but the text
        names = {task["data"]["uid_a"], task["data"]["uid_b"], task["data"]["uid"]}
        assert all(len(name) == 20 and int(name, 16) >= 0 for name in names)
    taken = 0
    for task in tasks:
        taken += 1
        ab.say(task, "a" if task["data"]["a"].startswith("good") else "b")
        try:
            judged = ab.judge.judge(asked)
            break
        except Waiting as waiting_still:
            assert "people prefer the aligned answer in" in str(waiting_still)
            assert people.how_far(ab.folder.parent).startswith("waiting for people's A/B labels ")
    told = [answer for answer in judged.answers if answer is not None]
    assert told.count(1.0) == taken in (8, 9)  # 8 wins are enough, or 9 where the equal texts had their turn before
    assert len(told) - taken == told.count(0.5) == (taken == 9)
    assert [sequential.answer([1.0] * n, 0.5) for n in (7, 8)] == ["open", "met"]
    assert judged.answers[-1] is None  # a prompt is asked about once
    assert judged.notes["people"]["answer"] == "met"
    assert people.how_far(ab.folder.parent) == ""


def test_sides_do_not_matter_and_losses_are_losses(labelstudio: Path, tmp_path: Path) -> None:
    ab, asked = AB(tmp_path, labelstudio, wanted=0.6, seed=3), questions()
    with pytest.raises(Waiting):
        ab.judge.judge(asked)
    for number, task in enumerate(ab.tasks()):
        bad = "a" if task["data"]["a"].startswith("bad") else "b"
        ab.say(task, {0: "tie", 5: "both_bad"}.get(number % 10, bad))
    judged = ab.judge.judge(asked)
    assert judged.notes["people"]["answer"] == "not met"
    assert {answer for answer in judged.answers if answer is not None} == {0.0, 0.5}


def test_a_wish_to_wait_is_kept_and_said_in_numbers() -> None:
    said = people.progress([1.0, 0.0, 1.0, 1.0], 0.5, total=200)
    assert said[0].startswith("people prefer the aligned answer in 75%")
    assert "more prompts are likely to be needed" in said[1]
    assert "the answer may stay open" in people.progress([1.0, 0.0] * 5, 0.5, total=20)[1]
