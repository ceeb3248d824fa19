"""Gold questions: their right answers are known, and stay here. They show how often each person is right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.errors import ConfigError
from trueup.feedback import tasks
from trueup.feedback.examples import DOWN_TO, UP_FROM
from trueup.feedback.judgement import SIDES, Comparison, Judgement, Rating, Thumb

Row = dict[str, Any]

WANTED = {"thumbs": "thumbs", "rating": "thumbs", "pairwise": "pairs"}  # what a screen's right answers are read from


@dataclass(frozen=True)
class Gold:
    """Tasks that look like all others, and uid -> the right answer: `up`, `down`, or the uid of the better text."""

    tasks: list[Row]
    right: dict[str, str]


def refuse(interface: str) -> None:
    """Raises ConfigError where the answers of an interface are neither right nor wrong."""
    if interface not in WANTED:
        raise ConfigError(
            "collect.gold",
            found=f"collect.interface: {interface}, to which there is no right answer",
            expected=f"one of {', '.join(WANTED)}",
            next_step="leave out collect.gold, or set another collect.interface",
        )


def gold_of(rows: list[Row], unusable: Mapping[str, int], path: Path, interface: str, seed: int) -> Gold:
    """The gold questions of the preferences that `path` holds: thumbs, or pairs for the screen `pairwise`.

    `rows` and `unusable` are as `trueup.data.read_preferences` gives them. A pair's better text is on a side drawn by
    `seed`. Raises ConfigError where the rows do not fit the interface or contradict each other.
    """
    faults = [f"{count} rows that cannot be used: {why}" for why, count in unusable.items() if count]
    paired = interface == "pairwise"
    if wrong := sum((row["rejected"] is not None) != paired for row in rows):
        faults.append(f"{wrong} rows that are {'no pairs' if paired else 'pairs, and no thumbs'}")
    if ties := sum(row["votes"][0] == row["votes"][1] for row in rows):
        faults.append(f"{ties} rows whose votes are even")
    made: dict[str, Row] = {}
    right: dict[str, str] = {}
    twice: set[str] = set()
    for row in rows if not faults else ():
        task, answer = _pair(row, seed) if paired else _single(row)
        uid = task["data"]["uid"]
        if right.setdefault(uid, answer) != answer:
            twice.add(uid)
        made[uid] = task
    if twice:
        faults.append(f"{len(twice)} questions with two right answers")
    if faults:
        raise ConfigError(
            "collect.gold",
            found=f"{path}: {'; '.join(faults)}",
            expected=f"{WANTED[interface]}, each with one right answer, for collect.interface: {interface}",
            next_step="correct the file",
        )
    return Gold(list(made.values()), right)


def is_right(one: Judgement, right: str) -> bool:
    """Whether a judgement of a gold question gives its right answer; a tie and a rating of 3 do not."""
    if isinstance(one, Thumb):
        return right == ("up" if one.up else "down")
    if isinstance(one, Rating):
        return one.rating >= UP_FROM if right == "up" else one.rating <= DOWN_TO
    return isinstance(one, Comparison) and one.preferred in SIDES and right == getattr(one, one.preferred)


def _single(row: Row) -> tuple[Row, str]:
    ups, downs = row["votes"]
    return tasks.to_task(_completion(row, "completion")), "up" if ups > downs else "down"


def _pair(row: Row, seed: int) -> tuple[Row, str]:
    one, other = _completion(row, "completion"), _completion(row, "rejected")
    turned = int(hashlib.sha256(f"{seed}\0{one['uid']}".encode()).hexdigest(), 16) % 2
    better = one if row["votes"][0] > row["votes"][1] else other
    return tasks.to_pair_task(*((other, one) if turned else (one, other))), better["uid"]


def _completion(row: Row, name: str) -> Row:
    """The row of a completion, whose uid is none of a sampled one's: nothing that is gold is ever trained on."""
    uid = hashlib.sha256(f"gold\0{row['prompt_id']}\0{row[name]}".encode()).hexdigest()[:20]
    return {"uid": uid, "messages": row["messages"], "completion": row[name]}
