"""Frozen judgements as columns that other trainers take as they are: nobody is locked in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


def judgements(annotations: Iterable[Row], completions: Iterable[Row], splits: Mapping[str, str]) -> list[Row]:
    """Every judgement as it was frozen, with the prompt, the text or the two texts that it is about, and the split.

    `completions` have uid, prompt_id, messages and completion; `splits` maps the prompts that gave something to train
    on. All rows have the same columns, and None where a kind of judgement has no such thing.
    """
    known = {row["uid"]: row for row in completions}
    found: list[Row] = []
    for one in annotations:
        about = [known.get(uid, {}) for uid in _about(one)]
        first = next(filter(None, about), {})
        prompt_id = first.get("prompt_id")
        row = {"prompt": first.get("messages"), "prompt_id": prompt_id, "split": splits.get(prompt_id or "")}
        names = ("completion",) if len(about) == 1 else ("completion_a", "completion_b")
        found.append(row | {name: text.get("completion") for name, text in zip(names, about, strict=True)} | one)
    columns = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in columns} for row in found]


def people_of(annotations: Iterable[Row]) -> dict[str, list[str]]:
    """uid of a completion -> who judged it, each once."""
    found: dict[str, dict[str, None]] = {}
    for one in annotations:
        for uid in _about(one):
            found.setdefault(uid, {})[one["annotator"]] = None
    return {uid: list(names) for uid, names in found.items()}


def _about(annotation: Row) -> tuple[str, ...]:
    return (annotation["a"], annotation["b"]) if "a" in annotation else (annotation["uid"],)


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
