"""Who is asked what: each question so many people, some questions more of them, some once more, and gold among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trueup.feedback.gold import Gold
from trueup.feedback.questions import Questions, numbered

Row = dict[str, Any]

EVERYBODY = 1000  # people: a gold question is given to whoever comes
APART = 10  # questions at least between a question and its repetition, where there are so many


@dataclass(frozen=True)
class Asked:
    """Tasks in the order in which people are given them, and what each of them is for."""

    tasks: list[Row]
    people: dict[str, int]  # uid of a question -> how many people judge it; for nothing else anybody is waited for
    overlap: list[str] = field(default_factory=list)  # the prompts that more people judge than the others
    right: Mapping[str, str] = field(default_factory=dict)  # uid of a gold question -> its right answer
    repeated: Mapping[str, str] = field(default_factory=dict)  # uid of a repetition -> the question it repeats

    @property
    def drawn(self) -> dict[str, Any]:
        """What a later call has to know: what was drawn, and which tasks are none to train on."""
        return {"overlap": self.overlap, "right": dict(self.right), "repeated": dict(self.repeated)}

    @property
    def people_of_all(self) -> dict[str, int]:
        """How many people each task is given to, gold and repetitions among them."""
        again = {uid: self.people[of] for uid, of in self.repeated.items() if of in self.people}
        return dict.fromkeys(self.right, EVERYBODY) | again | self.people

    def counts(self, each: int) -> dict[str, int]:
        """How many questions, how many of them more than `each` people judge, and how many are gold or come again."""
        return {
            "questions": len(self.people),
            "of_several_people": sum(number > each for number in self.people.values()),
            "gold": len(self.right),
            "repeated": len(self.repeated),
        }


def drawn(
    names: Iterable[str], share: float, seed: int, *, kept: Iterable[str] = (), rather: Iterable[str] = ()
) -> list[str]:
    """A `share` of the names, rounded, drawn by the seed: of those that are `rather` to be drawn before the others.

    Those `kept` from an earlier draw stay as far as they fit. So names may join, and who was drawn is drawn still.
    """
    stay, first = set(kept), set(rather)
    ranked = sorted(dict.fromkeys(names), key=lambda name: (name not in stay, name not in first, _draw(seed, name)))
    return ranked[: round(share * len(ranked))]


def asking(
    questions: Questions,
    each: int,
    seed: int,
    *,
    overlap: tuple[float, int] | None = None,
    repeated_share: float = 0,
    gold: Gold | None = None,
    gold_among: int | None = None,
    before: Mapping[str, Any] | None = None,
) -> Asked:
    """`each` people judge every question, and the questions of some prompts more: `overlap` is (their share, people).

    A `repeated_share` of the questions comes once more, further back, with the sides exchanged: rather of those that
    several people judge, since only who judged both tells anything. `gold` comes anywhere among the first `gold_among`
    questions, or among all. `before` is what an earlier call drew, as `Asked.drawn` says it.
    """
    before, gold = before or {}, gold or Gold([], {})
    kept = before.get("overlap", ())
    share, number = overlap or (0.0, each)
    prompts = drawn(questions.prompts.values(), share, seed, kept=kept)
    several = {uid for uid, prompt in questions.prompts.items() if prompt in set(prompts)}
    people = {uid: number if uid in several else each for uid in questions.prompts}
    kept = before.get("repeated", {}).values()
    wanted = set(drawn(people, repeated_share, seed, kept=kept, rather=several))
    again: dict[str, str] = {}
    placed: list[tuple[float, Row]] = []
    last = len(questions.tasks)
    for place, task in enumerate(questions.tasks):
        placed.append((place, task))
        if (uid := task["data"]["uid"]) in wanted:
            once_more = _again(task)
            again[once_more["data"]["uid"]] = uid
            first = min(place + APART, last)
            placed.append((first + _share(seed, f"again {uid}") * (last - first), once_more))
    among = last if gold_among is None else min(last, gold_among)
    placed += [(_share(seed, task["data"]["uid"]) * among, task) for task in gold.tasks]
    placed.sort(key=lambda found: found[0])  # a question comes before what falls on its place: the sort is stable
    return Asked(numbered([task for _, task in placed]), people, prompts, gold.right, again)


def repetition_of(uid: str) -> str:
    """The uid under which a question is asked once more."""
    return hashlib.sha256(f"once more\0{uid}".encode()).hexdigest()[:20]


def _again(task: Row) -> Row:
    data = dict(task["data"])
    if "a" in data:
        for name in ("{}", "uid_{}", "cut_{}"):
            a, b = name.format("a"), name.format("b")
            data[a], data[b] = data[b], data[a]
    return {"data": data | {"uid": repetition_of(data["uid"])}}


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def _share(seed: int, name: str) -> float:
    """A number from 0 to 1."""
    return int(_draw(seed, name)[:12], 16) / 16**12
