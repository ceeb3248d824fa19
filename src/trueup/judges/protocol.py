"""What every judge is: asked which of two answers to a prompt is better, it says how likely the first one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp, nextafter
from typing import Any, Protocol

from trueup.data.dialogue import Messages


@dataclass(frozen=True)
class Answer:
    """A text, and where it was sampled the token ids it was made of, and whether it ended by itself."""

    text: str
    ids: tuple[int, ...] | None = None
    finished: bool = True


@dataclass(frozen=True)
class Question:
    """Two answers to the last message of a dialogue."""

    prompt_id: str
    messages: Messages
    first: Answer
    second: Answer


@dataclass(frozen=True)
class Judged:
    """The answer to each question, in [0, 1]: 1 where the first is better, 0.5 where neither is; None where none came.

    `notes` are figures for the record: what failed, and what is off with the judge.
    """

    answers: list[float | None]
    notes: dict[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """Whoever compares answers."""

    @property
    def name(self) -> str:
        """Who it is, in words that follow "judged by"."""

    def judge(self, questions: Sequence[Question]) -> Judged:
        """Compare the answers of each question."""


Scores = Callable[[list[Messages], list[Answer]], list[float]]


@dataclass(frozen=True)
class ByScore:
    """A judge that scores each answer alone: a higher score is better, and how sure it is follows from the difference.

    `scores` are in any unit; `scale` is the difference at which the odds are e to 1 (Bradley and Terry 1952).
    """

    name: str
    scores: Scores
    scale: float = 1.0

    def judge(self, questions: Sequence[Question]) -> Judged:
        """Each answer that is asked about more than once is scored once."""
        asked = [(q.messages, answer) for q in questions for answer in (q.first, q.second)]
        keys = [(repr(messages), answer) for messages, answer in asked]
        once = dict(zip(keys, asked, strict=True))
        found = dict(zip(once, self.scores(*map(list, zip(*once.values(), strict=True))), strict=True)) if once else {}
        pairs = zip(keys[::2], keys[1::2], strict=True)
        return Judged([preference(found[one], found[other], self.scale) for one, other in pairs])


def preference(first: float, second: float, scale: float = 1.0) -> float:
    """How likely the first of two scores is the better one's: 1 / (1 + exp((second - first) / scale)).

    It is 0.5 of equal scores alone, however close others are.
    """
    x = (first - second) / scale
    found = 1 / (1 + exp(-x)) if x >= 0 else exp(max(x, -700)) / (1 + exp(max(x, -700)))
    return found if found != 0.5 or first == second else nextafter(0.5, float(first > second))


def outcome(answer: float) -> float:
    """1 where a judge's answer favours the first, 0 where it favours the second, 0.5 where it favours neither."""
    return float(answer > 0.5) + 0.5 * float(answer == 0.5)
