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
    answers = [
        {"prompt_id": row["id"], "messages": row["messages"]}
        | {label: some[i].text for label, some in done.items()}
        | {"reward": {label: some[i] for label, some in found["scores"].items()}}
        | {"preferred": {kind: opinion.answers["sft"][i] for kind, opinion in opinions.items()}}
        | {"preferred_over": {kind: _each(opinion.answers, i) for kind, opinion in opinions.items()}}
        | {"num_tokens": {label: some[i].num_tokens for label, some in done.items()}}
        | {"ids": {label: some[i].ids for label, some in done.items()}}
        | {"finish": {label: some[i].finish for label, some in done.items()}}
        for i, row in enumerate(rows)
    ]
    write_jsonl(context.out / "answers.jsonl", answers)
    if ranks.is_first():
        write_json(context.out / "report.json", figures)


def _each(answers: Mapping[str, list[float | None]], i: int) -> dict[str, float | None]:
    """What a judge said of the `i`-th aligned answer beside that of each other contestant."""
    return {label: some[i] for label, some in answers.items()}
