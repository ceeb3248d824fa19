"""Check every source of a file or of a run: what is wrong, what is odd, what is shared with the held-out prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trueup.data.closer import CountTokens
from trueup.data.faults import NUM_SHOWN
from trueup.data.leaks import WANTED
from trueup.data.names import refuse_alike
from trueup.data.report import ENOUGH, too_few
from trueup.data.sources import Reader
from trueup.data.survey import Survey, spread
from trueup.errors import DataError, visible
from trueup.run.data_config import DataConfig, Source

ONLY_TEXT = ("prompts", "held_out", "preferences")


@dataclass(frozen=True)
class Finding:
    """One line of the report. A fault keeps rows from being used; a warning is for a person to judge."""

    level: str  # fault | warning
    kind: str
    count: int
    where: list[str]  # the first twenty

    @property
    def more(self) -> str:
        """`and 3 more`, or nothing."""
        left = self.count - len(self.where)
        return f"and {left:,} more" if left > 0 else ""


def sources_of_run(data: DataConfig) -> dict[str, list[Source]]:
    """The sources of each field that the run file sets."""
    return {field: data.sources(field) for field in WANTED if getattr(data, field)}


def check(
    sources: Mapping[str, list[Source]],
    *,
    seed: int = 0,
    full: bool = False,
    count_tokens: CountTokens | None = None,
    train_on: str = "last",
    say: Callable[[str], None] = lambda words: None,
) -> list[Survey]:
    """Survey every source; `full` looks closely at all rows, not at a sample of 50,000.

    Fields are those of the run file's `data`; a file under any other name may hold any format.
    """
    surveys: dict[str, list[Survey]] = {}
    for field, found in sources.items():
        for source in found:
            reader = Reader(source, WANTED.get(field))
            survey = Survey(field, reader, seed=seed, full=full, count_tokens=count_tokens, train_on=train_on)
            surveys.setdefault(field, []).append(survey.run(say))
    for field in surveys.keys() & ENOUGH:
        last = surveys[field][-1]
        if any(survey.error is not None for survey in surveys[field]):
            continue
        num_prompts = last.num_prompts(surveys[field])
        last.too_few = too_few(
            field, last.num_examples_of(surveys[field]) if field == "demonstrations" else num_prompts
        )
    _compare_names(surveys.get("preferences", []))
    held_out = surveys.get("held_out", [])
    for field, done in surveys.items():
        for survey in done:
            if held_out and field != "held_out":
                survey.leaks_into(held_out)
    return [survey for done in surveys.values() for survey in done]


def _compare_names(surveys: list[Survey]) -> None:
    """Remember, with the last of them, names of several sources that may be one person's."""
    if any(survey.error is not None for survey in surveys):
        return  # of one source that is said already
    try:
        refuse_alike(sum((survey.reader.names for survey in surveys), Counter()), "data.preferences")
    except DataError as error:
        surveys[-1].error = error


def findings(survey: Survey) -> list[Finding]:
    """Faults first, then warnings, each kind with its first twenty places."""
    reader, found, with_tools = survey.reader, [], survey.num_with_tools
    if with_tools and survey.name in ONLY_TEXT:
        found.append(Finding("fault", "tools or tool calls, which only demonstrations can have", with_tools, []))
        with_tools = 0
    if survey.error is not None:
        found.append(Finding("fault", "unreadable", 1, [survey.error.message()]))
    for level, faults in (("fault", reader.faults), ("warning", survey.warnings), ("warning", reader.notes)):
        for kind, count in sorted(faults.counts.items()):
            where = [words for _, words in sorted(faults.shown[kind])[:NUM_SHOWN]]
            found.append(Finding(level, kind, count, where))
    for name, count in reader.unused.most_common():
        found.append(Finding("warning", visible(f"field not used: {name}"), count, []))
    for kind, count in (
        ("no preference: a tie", reader.num_ties),
        ("blank row, skipped", reader.faults.num_blank),
        ("tools or tool calls: trained where the chat template writes them, else refused", with_tools),
        ("assistant turn that is not trained on (data.train_on: last)", survey.num_other_turns),
    ):
        if count:
            found.append(Finding("warning", kind, count, []))
    for kind, count in sorted(reader.scores.left.items()):
        found.append(Finding("warning", visible(f"trace: {kind}"), count, []))
    if reader.files_not_read:
        names = [visible(name) for name in reader.files_not_read[:NUM_SHOWN]]
        found.append(Finding("warning", "file not read", len(reader.files_not_read), names))
    if survey.too_few:
        found.append(Finding("warning", "few rows", 1, [survey.too_few]))
    return found


def summary(survey: Survey) -> list[tuple[str, str]]:
    """(what, how much) of one source, for the table."""
    closer, reader = survey.closer, survey.reader
    rows = [
        ("format", ", ".join(dict.fromkeys(reader.formats.values())) or "none found"),
        ("rows", f"{reader.num_rows:,} read, {survey.num_examples:,} usable examples"),
        ("prompt, characters", said(spread(survey.prompt_lengths))),
        ("answer, characters", said(spread(survey.answer_lengths))),
    ]
    if closer.tokens:
        rows.append(("prompt + answer, tokens", said(spread(closer.tokens)) + ", without the chat template"))
    common = ", ".join(f"{code} {count / closer.num_rows:.1%}" for code, count in closer.languages.most_common(5))
    looked_at = "all rows" if survey.full or closer.num_rows == survey.num_examples else "a seeded sample"
    rows.append(("language", common or "-"))
    rows.append(("near duplicates, language", f"looked for in {looked_at}: {closer.num_rows:,} rows"))
    return rows


def figures(survey: Survey) -> dict[str, Any]:
    """One source as JSON values: its rows, lengths, languages, and the findings with their first twenty places."""
    closer, reader = survey.closer, survey.reader
    return {
        "field": survey.name,
        "path": str(reader.source.path),
        "formats": list(dict.fromkeys(reader.formats.values())),
        "num_rows": reader.num_rows,
        "num_examples": survey.num_examples,
        "prompt_characters": spread(survey.prompt_lengths),
        "answer_characters": spread(survey.answer_lengths),
        "tokens": spread(closer.tokens) if closer.tokens else None,
        "languages": dict(closer.languages.most_common()),
        "num_looked_at_closely": closer.num_rows,
        "findings": [asdict(found) for found in findings(survey)],
    }


def said(lengths: dict[str, int]) -> str:
    """`min 3, median 40, p95 200, max 512`."""
    return ", ".join(f"{name} {value:,}" for name, value in lengths.items()) or "-"
