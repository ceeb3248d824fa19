"""What `check` found, as a table on the screen and as one HTML page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trueup import drawing
from trueup.data.check import findings, summary
from trueup.errors import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trueup.data.survey import Survey

NUM_ON_SCREEN = 3  # places of each kind of warning; of faults all twenty are shown


def show(surveys: list[Survey]) -> None:
    """Print a table for each source. Texts come from files: they are never read as markup."""
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for survey in surveys:
        table = Table("what", "count", "where", title=Text(_title(survey)), title_justify="left", expand=True)
        table.columns[1].justify = "right"
        for what, value in summary(survey):
            table.add_row(Text(what), "", Text(value))
        table.add_section()
        for finding in findings(survey):
            colour = "red" if finding.level == "fault" else "yellow"
            shown = finding.where if finding.level == "fault" else finding.where[:NUM_ON_SCREEN]
            if finding.kind == "unreadable":  # the whole message stands below the tables
                shown = [words.splitlines()[0] for words in shown]
            left = finding.count - len(shown)
            lines = [Text(words) for words in shown] + ([Text(f"and {left:,} more")] if left > 0 and shown else [])
            table.add_row(Text(f"{finding.level}: {finding.kind}", colour), f"{finding.count:,}", Group(*lines))
        if not findings(survey):
            table.add_row(Text("nothing wrong", "green"), "0", "")
        console.print(table)


def write(surveys: list[Survey], path: Path) -> Path:
    """The page: for each source the same figures, all places that were kept, and plots of lengths and languages."""
    from trueup.page import Page

    page = Page("Data check")
    for survey in surveys:
        page.heading(_title(survey))
        page.table(("what", "found"), summary(survey))
        found = findings(survey)
        if found:
            rows = [(f.level, f.kind, f.count, "\n".join([*f.where, f.more]).strip()) for f in found]
            page.table(("level", "kind", "count", "where"), rows)
        else:
            page.text("Nothing wrong.")
        if survey.num_examples:
            unit = "tokens" if survey.closer.tokens else "characters"
            page.plot(_lengths(survey), f"How long the texts are, in {unit}; the last bar holds the longest 1%.")
            page.plot(
                _languages(survey),
                f"Languages of {survey.closer.num_rows:,} rows, guessed from the answer's beginning.",
            )
    return page.write(path)


def _title(survey: Survey) -> str:
    return visible(f"{survey.name}: {survey.reader.source.path}")


def _lengths(survey: Survey) -> Figure:
    import numpy as np

    if survey.closer.tokens:
        parts = {"prompt + answer": np.asarray(survey.closer.tokens)}
    else:
        parts = {"prompt": np.asarray(survey.prompt_lengths), "answer": np.asarray(survey.answer_lengths)}
    parts = {name: lengths for name, lengths in parts.items() if len(lengths)}
    longest = max(float(np.percentile(lengths, 99)) for lengths in parts.values())
    edges = np.linspace(0, max(longest, 1), 41)
    figure, axes = drawing.axes(2.4)
    for (name, lengths), colour in zip(parts.items(), drawing.COLOURS, strict=False):
        axes.hist(np.minimum(lengths, edges[-1]), bins=list(edges), alpha=0.6, label=name, color=colour)
    axes.set(xlabel="tokens" if survey.closer.tokens else "characters", ylabel="rows")
    drawing.legend(axes)
    return figure


def _languages(survey: Survey) -> Figure:
    common = survey.closer.languages.most_common(8)[::-1]
    figure, axes = drawing.axes(0.6 + 0.28 * len(common))
    shares = [100 * count / survey.closer.num_rows for _, count in common]
    axes.barh([code for code, _ in common], shares, color=drawing.MAIN)
    axes.set_xlabel("% of rows")
    return figure
