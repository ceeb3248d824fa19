"""The votes of a budget: what people say of the answers, in the order in which it is paid for, and how long it takes.

Simulated people give thumbs, as in `trueup demo`: one person judges all answers that one run gave to a prompt, in turn,
and all three judge every fifth such unit. A mistake is a verdict that the mood of the moment turns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from label_parts import pool
from label_parts.features import Row
from label_parts.people import MOOD
from label_parts.tasks import Task
from trueup.demo import simulate

WORDS_A_MINUTE = 238  # silent reading of English non-fiction: Brysbaert 2019, J. Memory and Language 109, 104047


def thumbs(rows: list[Row], task: Task, seed: int) -> list[Any]:
    """Every thumb in the order in which it is paid for: the first `budget` of them are a budget."""
    from trueup.feedback.judgement import Thumb

    draw = random.Random(seed)  # noqa: S311 - no secret
    people = [
        (name, task.middle + task.unit * draw.uniform(-0.2, 0.2), task.unit * (MOOD + draw.uniform(-0.05, 0.05)))
        for name in simulate.NAMES
    ]
    found = []
    for number, unit in enumerate(pool.units(rows, seed)):
        seated = people if number % simulate.OVERLAP == 0 else [people[number % len(people)]]
        for name, threshold, noise in seated:
            for row in unit:
                mood = random.Random(f"{seed}\0{name}\0{row['uid']}").gauss(0, noise)  # noqa: S311 - no secret
                up = task.truth(row["prompt"], row["completion"]) + mood > threshold
                found.append(Thumb(uid=row["uid"], annotator=name, up=up))
    return found


def minutes(said: Sequence[Any], rows: dict[str, Row]) -> float:
    """The minutes that reading takes: each answer that is judged, and each prompt once for each person who judges it.

    Deciding and clicking are not counted.
    """
    asked = {(one.annotator, rows[one.about[0]]["prompt_id"]): rows[one.about[0]]["messages"] for one in said}
    words = sum(len(turn["content"].split()) for messages in asked.values() for turn in messages)
    words += sum(len(rows[uid]["completion"].split()) for one in said for uid in one.about)
    return words / WORDS_A_MINUTE
