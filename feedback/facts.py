"""What is counted of the judgements of a run, to advise on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trueup.feedback import agreement, examples, quality
from trueup.feedback.judgement import Judgement, Thumb

Row = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What was counted. `reward` and `win` are shares with their intervals, None where the stage was not built."""

    num_judgements: dict[str, int]  # by kind
    num_prompts: int
    num_prompts_with_pairs: int
    num_pairs: int
    num_in_pairs: int  # judgements that DPO and the reward model learn from
    num_in_rows: int  # that KTO learns from
    num_people: int
    share_up: dict[str, Any] | None
    alpha: dict[str, Any] | None
    num_compared: int  # pairs of people on the same thing
    seconds: dict[str, float]  # median by kind, where somebody measured
    weight_by_kind: dict[str, float]  # of pairs: the sum of their margins
    wanted: float | None = None  # the goal's win rate
    num_held_out: int | None = None  # prompts that evaluate compares on
    reward: dict[str, Any] | None = None
    win: dict[str, Any] | None = None

    @property
    def total(self) -> int:
        return sum(self.num_judgements.values())

    @property
    def minutes(self) -> dict[str, float]:
        """Annotator-minutes by kind: the median times the number."""
        return {kind: self.num_judgements[kind] * each / 60 for kind, each in self.seconds.items()}


def facts_of(judgements: Sequence[Judgement], completions: Sequence[Row], **known: Any) -> Facts:
    """Count; `known` are the fields of `Facts` that the judgements do not tell."""
    from_files = not any(one.annotation_id is not None for one in judgements)
    made = examples.build(judgements, completions, sides_are_thumbs=from_files)
    figures = quality.figures(judgements, completions)
    last = examples.last_judgements(judgements)
    became = [(fate, n) for fates in made.became.values() for fate, n in fates.items()]
    in_pairs = (examples.PAIRS, examples.BOTH, examples.EDITED)
    in_rows = (examples.ROWS, examples.BOTH, examples.BOTH_BAD)
    kinds = sorted({one.kind for one in last})
    timed = {kind: [one.lead_time for one in last if one.kind == kind and one.lead_time is not None] for kind in kinds}
    return Facts(
        num_judgements={kind: sum(one.kind == kind for one in last) for kind in kinds},
        num_prompts=made.num_prompts,
        num_prompts_with_pairs=len({pair["prompt_id"] for pair in made.pairs}),
        num_pairs=len(made.pairs),
        num_in_pairs=sum(n for fate, n in became if fate in in_pairs),
        num_in_rows=sum(n for fate, n in became if fate in in_rows),
        num_people=len(figures["people"]),
        share_up=agreement.share([one.up for one in last if isinstance(one, Thumb)]),
        alpha=figures["alpha"],
        num_compared=figures["num_compared"],
        seconds={kind: statistics.median(some) for kind, some in timed.items() if some},
        weight_by_kind={kind: sum(p["margin"] for p in made.pairs if p["kind"] == kind) for kind in kinds},
        **known,
    )
