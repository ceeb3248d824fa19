"""Every aligned adapter of a run side by side: rounds, methods and variants, each with its own verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueup.run.artifacts import everything
from trueup.run.candidates import candidates
from trueup.run.goal import over_round_before, won_by

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
    win_rate_over_round_before: dict[str, float] | None  # over the winner of that round; None in the first
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
            before = over_round_before(figures)
            found.append(
                Tried(
                    round=number,
                    adapter=one.name,
                    overrides=one.overrides,
                    win_rate_over_sft=won_by(figures) if figures else None,
                    kl_nats_per_token=figures.get("kl_nats_per_token"),
                    win_rate_over_round_before=before[0] if before else None,
                    wins_its_round=pipeline.winner(number) == one.name,
                )
            )
    return found


def contest_table(tried: list[Tried]) -> Table:
    """The same as a table; the winner of a round is what the next one starts from."""
    from rich.table import Table
    from rich.text import Text

    title = "what was aligned so far: comparisons won, in percent, with 95% intervals"
    table = Table("round", "adapter", "over SFT", title=title)
    later = any(one.win_rate_over_round_before for one in tried)
    if later:
        table.add_column("over last round")
    table.add_column("KL")
    table.add_column("")
    for one in tried:
        kl = "" if one.kl_nats_per_token is None else f"{one.kl_nats_per_token:.3f}"
        over = [_share(one.win_rate_over_sft, "not evaluated")]
        over += [_share(one.win_rate_over_round_before, "")] if later else []
        table.add_row(str(one.round), Text(one.adapter), *over, kl, "winner" if one.wins_its_round else "")
    return table


def _share(won: dict[str, float] | None, otherwise: str) -> str:
    """A win rate with its interval, in words."""
    return otherwise if won is None else f"{won['estimate']:.1%} ({100 * won['low']:.0f} to {100 * won['high']:.0f})"
