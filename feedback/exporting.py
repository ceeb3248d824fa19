"""Frozen judgements as columns that other trainers take as they are: nobody is locked in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]


def dpo(pairs: Iterable[Row], people: dict[str, list[str]]) -> list[Row]:
    """Conversational preferences with an explicit prompt, as TRL's DPOTrainer takes them."""
    return [
        {"prompt": pair["prompt"], "chosen": [_answer(pair["chosen"])], "rejected": [_answer(pair["rejected"])]}
        | _of_pair(pair, people)
        for pair in pairs
    ]


def reward(pairs: Iterable[Row], people: dict[str, list[str]]) -> list[Row]:
    """Conversational preferences with the prompt in each dialogue, as TRL's RewardTrainer takes them."""
    return [
        {
            "chosen": [*pair["prompt"], _answer(pair["chosen"])],
            "rejected": [*pair["prompt"], _answer(pair["rejected"])],
        }
        | _of_pair(pair, people)
        for pair in pairs
    ]


def kto(rows: Iterable[Row], people: dict[str, list[str]]) -> list[Row]:
    """Conversational unpaired preferences, as TRL's KTOTrainer takes them; one row for each thumb."""
    return [
        {"prompt": row["prompt"], "completion": [_answer(row["completion"])], "label": row["label"]}
        | {"weight": row["weight"], "annotators": people.get(row["uid"], [])}
        | {"split": row["split"], "prompt_id": row["prompt_id"]}
        for row in rows
    ]


PAIRED: dict[str, Callable[[Iterable[Row], dict[str, list[str]]], list[Row]]] = {"trl-dpo": dpo, "trl-reward": reward}


def judgements(annotations: Iterable[Row], rows: Iterable[Row]) -> list[Row]:
    """Every judgement as it was frozen, with the prompt, the text that it is about, and the split.

    `rows` are those of the same snapshot. Of a judgement that none of them is about, these four are None.
    """
    about = {row["uid"]: row for row in rows}
    names = ("prompt", "completion", "split", "prompt_id")
    return [{name: about.get(one["uid"], {}).get(name) for name in names} | one for one in annotations]


def people_of(annotations: Iterable[Row]) -> dict[str, list[str]]:
    """uid of a completion -> who judged it, each once."""
    found: dict[str, dict[str, None]] = {}
    for one in annotations:
        found.setdefault(one["uid"], {})[one["annotator"]] = None
    return {uid: list(names) for uid, names in found.items()}


def _of_pair(pair: Row, people: dict[str, list[str]]) -> Row:
    both = [*people.get(pair["chosen_uid"], []), *people.get(pair["rejected_uid"], [])]
    return {
        "weight": pair["weight"],
        "margin_between_people": pair.get("margin"),
        "annotators": list(dict.fromkeys(both)),
        "split": pair["split"],
        "prompt_id": pair["prompt_id"],
    }


def _answer(text: str) -> Row:
    return {"role": "assistant", "content": text}
