"""answers.jsonl and report.json of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trueup import ranks
from trueup.judges.contest import sampled
from trueup.judges.headline import Opinion
from trueup.run.artifacts import write_json, write_jsonl
from trueup.run.stage import Context, Metrics

Row = dict[str, Any]


def write(context: Context, rows: list[Row], found: Row, opinions: Mapping[str, Opinion], figures: Metrics) -> None:
    """`rows` are the held-out prompts, one for each answer; `found` is what `contest.measured` found.

    The figures are written on the first rank alone.
    """
    done = {label: [sampled(one) for one in some] for label, some in found["done"].items()}
    place = {label: {i: k for k, i in enumerate(found["rows"][label])} for label in done}  # of those who answered it
    answers = []
    for i, row in enumerate(rows):
        own = {label: some[place[label][i]] for label, some in done.items() if i in place[label]}
        answers.append(
            {"prompt_id": row["id"], "messages": row["messages"]}
            | {label: one.text for label, one in own.items()}
            | {"reward": {label: found["scores"][label][place[label][i]] for label in own}}
            | {"preferred": {kind: opinion.answers["sft"][i] for kind, opinion in opinions.items()}}
            | {
                "preferred_over": {
                    kind: {label: some[place[label][i]] for label, some in opinion.answers.items() if label in own}
                    for kind, opinion in opinions.items()
                }
            }
            | {"num_tokens": {label: one.num_tokens for label, one in own.items()}}
            | {"ids": {label: one.ids for label, one in own.items()}}
            | {"finish": {label: one.finish for label, one in own.items()}}
        )
    write_jsonl(context.out / "answers.jsonl", answers)
    if ranks.is_first():
        write_json(context.out / "report.json", figures)
