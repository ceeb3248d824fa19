"""The hidden truths of benchmarks/labels.py: expected values are added up by hand from what the sentences hold."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TROUBLE, OPEN, CLOSED = "My tent leaks. What now?", "How do I clean my tents?", "Do you sell tents?"


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from label_parts import tasks

    return tasks


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("We can do that. Come by when you like.", 3.4),  # 1 two sentences + 0.8 short first + 1 no number + 0.6 commas
        ("We can do that! Come by when you like.", 2.6),  # the same - 0.8 exclamation mark
        ("We can do that in two days. Come by.", 2.4),  # 1 + 0.8 + 0.6, and a number
        ("Red, green, blue or black.", 1.8),  # one sentence: 0.8 + 1, and two commas
        ("I really do think that all of our tents are good in the rain.", 1.6),  # 14 words in one: 1 + 0.6
    ],
)
def test_what_a_form_is_worth(tasks: Any, answer: str, worth: float) -> None:
    assert tasks.TASKS["format"].truth("any prompt", answer) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("answer", "trouble", "open_", "closed"),
    [
        # warm first and asks back: 1.2 + 1 | names no tent, asks and is brief: -0.8 - 0.6 | brief, asks: 1 - 0.8
        ("I am sorry to hear that. When did it begin?", 2.2, -1.4, 0.2),
        # acts: -0.8 | acts and is brief, tent in the second sentence alone: 1.2 - 0.6 | brief, acts: 1 - 0.6
        ("Nothing is easier. Wash the tent with soap.", -0.8, 0.6, 0.4),
        # no part of it | the tent at once, brief: 0.8 - 0.6 | yes at once, brief: 1 + 1
        ("Yes, all our tents are here.", 0.0, 0.2, 2.0),
    ],
)
def test_the_worth_of_an_answer_depends_on_what_was_asked(
    tasks: Any, answer: str, trouble: float, open_: float, closed: float
) -> None:
    truth = tasks.TASKS["asked"].truth
    found = [truth(prompt, answer) for prompt in (TROUBLE, OPEN, CLOSED)]
    assert found == pytest.approx([trouble, open_, closed])


def test_a_long_answer_is_not_brief(tasks: Any) -> None:
    brief, long = (" ".join(["word"] * count) + "." for count in (25, 26))
    assert tasks.asked(CLOSED, brief) == 1.0
    assert tasks.asked(CLOSED, long) == 0.0


def test_a_prompt_that_first_tells_something_is_a_trouble(tasks: Any) -> None:
    assert [tasks.kind_of(prompt) for prompt in (TROUBLE, OPEN, CLOSED)] == ["trouble", "open", "closed"]
