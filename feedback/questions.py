"""What people are asked: a task for each completion, or for pairs of completions of one prompt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from trueup.feedback import tasks

Row = dict[str, Any]


@dataclass(frozen=True)
class Questions:
    """Tasks in order, the prompt of each, and how many completions nobody is asked about, by reason."""

    tasks: list[Row]
    not_asked: dict[str, int]
    prompts: dict[str, str]  # uid of a task -> prompt_id

    @property
    def uids(self) -> list[str]:
        return [task["data"]["uid"] for task in self.tasks]


def questions(completions: list[Row], interface: str, seed: int) -> Questions:
    """One task for each completion; with `pairwise`, tasks as `pairs` chooses them. Each says its place: "12 of 80"."""
    not_asked: dict[str, int] = {}
    if interface == "pairwise":
        asked, not_asked = pairs(completions, seed)
        made = [(a["prompt_id"], tasks.to_pair_task(a, b)) for a, b in asked]
    else:
        made = [(row["prompt_id"], tasks.to_task(row)) for row in completions]
    prompts = {task["data"]["uid"]: prompt for prompt, task in made}
    return Questions(numbered([task for _, task in made]), not_asked, prompts)


def pairs(completions: list[Row], seed: int) -> tuple[list[tuple[Row, Row]], dict[str, int]]:
    """((answer on side A, answer on side B) of each question, completions in none by reason).

    The texts of a prompt, in an order drawn by `seed`, are put in a ring, and each is compared with the next one. So an
    answer is judged twice, once on either side, and the work grows with the answers, not with their square. Of two
    answers there is one question; in every second prompt, drawn by `seed`, the sides change places. Of equal texts the
    first is asked about.
    """
    by_prompt: dict[str, dict[str, Row]] = {}
    for row in completions:
        by_prompt.setdefault(row["prompt_id"], {}).setdefault(row["completion"], row)
    turned = set(sorted(by_prompt, key=lambda prompt: _draw(seed, prompt))[::2])
    asked: list[tuple[Row, Row]] = []
    alone = 0
    for prompt, by_text in by_prompt.items():
        ring = sorted(by_text.values(), key=lambda row: _draw(seed, row["uid"]))
        if len(ring) == 2:
            a, b = (row for row in by_text.values())  # in the order in which they were sampled
            asked.append((b, a) if prompt in turned else (a, b))
        elif len(ring) > 2:
            asked += zip(ring, [*ring[1:], ring[0]], strict=True)
        alone += len(ring) == 1
    same = len(completions) - sum(map(len, by_prompt.values()))
    return asked, {what: count for what, count in (("same text as another", same), ("alone", alone)) if count}


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def numbered(made: list[Row]) -> list[Row]:
    """The tasks, each with its place among them."""
    return [{"data": task["data"] | {"place": f"{n} of {len(made)}"}} for n, task in enumerate(made, start=1)]
