"""Every aligned adapter of a run side by side: rounds, methods and variants, each with its own verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueup.run.artifacts import everything
from trueup.run.candidates import candidates
from trueup.run.goal import won_by

if TYPE_CHECKING:
    from rich.table import Table

    from trueup.run.pipeline import Pipeline


@dataclass(frozen=True)
class Tried:
    """One aligned adapter; the figures are None where it was not evaluated since it was built."""

    round: int
    adapter: str  # dpo, or dpo@beta-0.3
    overrides: tuple[str, ...]
    win_rate_over_sft: dict[str, float] | None  # estimate, low, high, num_prompts
    kl_nats_per_token: float | None
    wins_its_round: bool  # what the next round starts from


def contest(pipeline: Pipeline) -> list[Tried]:
    """Those of all rounds, in order."""
    methods = [stage.name for stage in pipeline.stages.values() if stage.alignment]
    names = {artifact.path.parent.name for artifact in everything(pipeline.folder)}
    numbers = sorted(int(name[6:]) for name in names if name.startswith("round-"))
    found = []
    for number in numbers:
        for one in candidates(pipeline.folder, number, methods):
            figures = one.figures or {}
            found.append(
                Tried(
                    round=number,
                    adapter=one.name,
                    overrides=one.overrides,
                    win_rate_over_sft=won_by(figures) if figures else None,
                    kl_nats_per_token=figures.get("kl_nats_per_token"),
                    wins_its_round=pipeline.winner(number) == one.name,
                )
            )
    return found


def contest_table(tried: list[Tried]) -> Table:
    """The same as a table; the winner of a round is what the next one starts from."""
    from rich.table import Table
    from rich.text import Text

    table = Table("round", "adapter", "wins over SFT", "95 % interval", "KL", "", title="what was aligned so far")
    for one in tried:
        won, kl = one.win_rate_over_sft, one.kl_nats_per_token
        table.add_row(
            str(one.round),
            Text(one.adapter),
            "not evaluated" if won is None else f"{won['estimate']:.1%}",
            "" if won is None else f"{won['low']:.1%} to {won['high']:.1%}",
            "" if kl is None else f"{kl:.3f}",
            "winner" if one.wins_its_round else "",
        )
    return table
