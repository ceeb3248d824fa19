"""What `chat` and `serve` ask of a run before anything is loaded, and their common options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trueup.cli.options import open_run

if TYPE_CHECKING:
    from trueup.run.pipeline import Pipeline
    from trueup.talk.answers import How
    from trueup.talk.roster import Roster

MAX_TOKENS = click.option(
    "--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="The longest answer, in tokens."
)
TEMPERATURE = click.option(
    "--temperature", type=click.FloatRange(0, 2), help="By default that of sample in the run file; 0 is greedy."
)
TOP_P = click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), help="By default that of sample in the run file."
)


def _several(context: click.Context, option: click.Parameter, n: int | None) -> int:
    """`--best-of`; 0 where it is not given."""
    from trueup.talk.asked import MOST_ANSWERS

    if n is not None and not 2 <= n <= MOST_ANSWERS:
        raise click.BadParameter(
            f"{n}; expected 2 to {MOST_ANSWERS} answers to choose the best of, such as --best-of 4. Leave it out to "
            "have each answer as it is sampled."
        )
    return n or 0


BEST_OF = click.option(
    "--best-of",
    type=int,
    metavar="N",
    callback=_several,
    help="Sample N answers at once, and give the one with the highest reward; by default each is given as it is.",
)


def opened(run_file: Path, overrides: tuple[str, ...]) -> tuple[Pipeline, Roster]:
    """The run, and what of it can be talked to. Raises TrueupError where there is nothing."""
    from trueup.talk.roster import roster

    pipeline = open_run(run_file, overrides)
    return pipeline, roster(pipeline)


def sampled_how(pipeline: Pipeline, temperature: float | None, top_p: float | None, max_tokens: int, seed: int) -> How:
    """How answers are sampled: as the options say, else as `sample` does."""
    from trueup.stages.sample import Config
    from trueup.talk.answers import How

    section = pipeline.run.section("sample")
    assert isinstance(section, Config)  # noqa: S101 - the run file's shape
    return How(
        temperature=section.temperature if temperature is None else temperature,
        top_p=section.top_p if top_p is None else top_p,
        max_tokens=max_tokens,
        seed=seed,
    )


def need_reward(pipeline: Pipeline, roster: Roster, how: How, best_of: int) -> None:
    """Raises TrueupError where the best of several answers is asked for and nothing can choose it, and UsageError where
    all of them would be the same."""
    from trueup.talk import chooser

    if best_of:
        chooser.need(pipeline, roster.chooses())
        if how.temperature == 0:
            raise click.UsageError(
                f"--best-of {best_of} needs answers that differ, and at temperature 0 all are the same: add "
                "--temperature 1, or leave --best-of out"
            )


def notes(pipeline: Pipeline, roster: Roster, best_of: int) -> list[str]:
    """What users should know of the models, a line each."""
    from trueup.errors import visible

    data, lines = pipeline.run.data, []
    if data.system:
        lines.append(f"data.system comes first, unless a conversation has a system message of its own: {data.system!r}")
    if data.few_shot:
        lines.append(f"data.few_shot comes before every conversation: {len(data.few_shot)} examples")
    lines += [f"warning: {name} is used as it is, and is stale: {why}" for name, why in roster.stale.items()]
    lines += [f"warning: {name} cannot be used: {why}" for name, why in roster.refused.items()]
    if best_of:
        from trueup.talk.best import in_words

        by = roster.chooses()
        lines.append(in_words(best_of, roster))
        for line in by.says:
            kind = "warning: " if line.startswith("warning: ") else ""
            lines.append(f"{kind}{by.name}: {line.removeprefix(kind)}")
        lines += [f"warning: {by.name} is used as it is, and is stale: {by.stale}"] if by.stale else []
    return [visible(line) for line in lines]
