"""Verdicts of real people on pairs of answers, from the human data beside the project: two tasks without a truth.

`pandalm`: three people on each pair; `helpful`: one unnamed person on each. A test pair is right as most people say.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from functools import cache
from typing import Any

from label_parts import features
from label_parts.features import Row

FILES = {"pandalm": "pandalm_testset_v1.jsonl.gz", "helpful": "hh_helpful_base.train.jsonl.gz"}
APART = {"pandalm": 0.25, "helpful": 0.19}  # the share of instructions, or prompts, whose pairs are held out
LONGEST = 256  # tokens of prompt and answer together, on either side of a pair
FIFTH = 5  # every fifth pair is judged by everybody in its turn, as in the demo


def there(name: str) -> str:
    """Empty where the file of a task is there; else what is missing."""
    import common

    path = common.DATA / FILES[name]
    return "" if path.exists() else f"{name} is left out: {path}: no such file; it needs the human data of the project"


@cache
def read(name: str) -> tuple[list[Row], list[list[Any]], Row]:
    """(answers, the comparisons of each pair, counts) of a task.

    Answers are rows as of `pool.rows_of`, and each pair's comparisons are all about the same two of them.
    """
    import common

    from trueup.chat.template import Chat
    from trueup.data import read_preferences
    from trueup.data.reading import instruction_of
    from trueup.feedback.files import judgements_of
    from trueup.models import base
    from trueup.run.data_config import DataConfig

    rows, left_out = read_preferences(DataConfig.model_validate({"preferences": common.DATA / FILES[name]}))
    said, completions = judgements_of(rows)
    group = {row["prompt_id"]: row["prompt_id"] for row in completions}
    if name == "pandalm":  # by instruction: two inputs to one instruction are alike
        raw = common.rows_of(FILES[name], 1_000_000)
        named = {instruction_of(row, row.get("input"))[0]["content"]: row["instruction"] for row in raw}
        group = {row["prompt_id"]: named[row["messages"][-1]["content"]] for row in completions}
    groups = sorted(set(group.values()), key=lambda one: hashlib.sha256(one.encode()).hexdigest())
    apart = set(groups[: round(APART[name] * len(groups))])
    chat = Chat(base.load_tokenizer(common.BASE))
    known: dict[str, Row] = {}
    for row in completions:
        if len(chat.answer(row["messages"], row["completion"]).ids) <= LONGEST:
            made = {
                "key": features.key_of(row["messages"], row["completion"]),
                "held_out": group[row["prompt_id"]] in apart,
            }
            known[row["uid"]] = row | made | {"prompt": row["messages"][-1]["content"]}
    by_pair: dict[str, list[Any]] = defaultdict(list)
    for one in said:
        by_pair[one.uid].append(one)
    pairs = [some for some in by_pair.values() if all(uid in known for uid in some[0].about)]
    used = {uid for some in pairs for uid in some[0].about}
    counts = {"pairs": len(by_pair), "pairs_too_long": len(by_pair) - len(pairs), "left_out": left_out}
    return [row for row in known.values() if row["uid"] in used], pairs, counts


def test_pairs(rows: list[Row], pairs: list[list[Any]]) -> list[tuple[int, int]]:
    """(better, worse) rows of each held-out pair of which most people prefer one side."""
    place = {row["uid"]: number for number, row in enumerate(rows)}
    found = []
    for some in pairs:
        if rows[place[some[0].a]]["held_out"]:
            first, second = some[0].about
            votes = Counter(one.about["ab".index(one.preferred)] for one in some if one.preferred in ("a", "b"))
            if votes[first] != votes[second]:
                better, worse = (first, second) if votes[first] > votes[second] else (second, first)
                found.append((place[better], place[worse]))
    return found


def votes(rows: list[Row], pairs: list[list[Any]], seed: int) -> list[Any]:
    """Every training comparison in the order in which it is paid for; the first `budget` of them are a budget.

    Pairs come in random order. One person judges each, in turn, and everybody every fifth; when all pairs are judged,
    the verdicts that are left follow in the same order.
    """
    apart = {row["uid"] for row in rows if row["held_out"]}
    order = sorted((some for some in pairs if some[0].a not in apart), key=lambda some: some[0].uid)
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    first, later = [], []
    for number, some in enumerate(order):
        seated = range(len(some)) if number % FIFTH == 0 else [number % len(some)]
        first += [some[seat] for seat in seated]
        later += [one for seat, one in enumerate(some) if seat not in seated]
    return first + later
