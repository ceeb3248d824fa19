"""The section `data` of a run file: the user's files, and how they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from trueup.run.section import Section

# Our names of columns: the left-hand side of `columns`. trueup.data.formats says what each is.
COLUMNS = (
    *("annotator", "annotator1", "choices", "chosen", "chosen-rating", "chosen_rating", "chosen_score"),
    *("comment", "completion", "conversations", "created_at", "down", "feedback", "guidelines", "input"),
    *("instances", "instruction", "label", "lead_time", "messages", "output", "prompt", "rating", "reasons"),
    *("rejected", "rejected-rating", "rejected_rating", "rejected_score", "request", "response", "response1"),
    *("response2", "score", "score_chosen", "score_rejected", "system", "system_prompt", "text", "timestamp"),
    *("tools", "up", "updated_at", "user", "user_id", "votes_against", "votes_for"),
)


def _our_names(columns: dict[str, str]) -> dict[str, str]:
    """Raises ValueError where a left-hand side is none of COLUMNS, or two columns get one name."""
    for name, theirs in columns.items():
        if name not in COLUMNS and not re.fullmatch(r"annotator\d+|(annotator|rating)[ _-].+", name):
            from rapidfuzz import process

            near = process.extractOne(name, COLUMNS, score_cutoff=60)
            hint = f"; did you mean {near[0]}: {theirs}?" if near else f", one of {', '.join(COLUMNS)}"
            raise ValueError(f"a name of ours, then the file's: {name} is none of ours{hint}")
    return columns


Columns = Annotated[dict[str, str], AfterValidator(_our_names)]


class Source(Section):
    """One source of rows, with its weight and the names of its columns."""

    path: Path
    """A file, a folder, a pattern such as `train-*.parquet`, or `hub:owner/name`; a relative path is looked for beside
    the run file."""
    weight: float = Field(default=1.0, gt=0)
    """How often each row is used, in times per row: 0.5 takes a seeded half of the rows, 2 takes each of them twice.
    Weights above 1 are for demonstrations only."""
    columns: Columns = Field(default={})
    """The names of this file's columns, where they are not ours: our name, then the file's. Empty by default;
    `data.columns` holds for every file."""

    scores: Path | None = None
    """A file of scores beside the traces in `path`, as Langfuse and LangSmith export them: each score names the
    observation, the trace or the run that it is about. A relative path is looked for beside the run file. None by
    default: scores are then in the traces themselves."""
    score: str | None = None
    """Which of several scores of a trace says what people thought of it, by its name, such as `user-feedback`. By
    default the only one that is there; with several, trueup asks for this."""
    thumbs_up_from: float | None = None
    """The score from which on a trace has a thumb up, such as 4 of 5 stars: a number without a unit, on the file's own
    scale. By default scores are thumbs themselves: true/false, 1/0, 1/-1, or words such as good/bad."""
    thumbs_down_to: float | None = None
    """The score up to which a trace has a thumb down, without a unit, on the same scale; scores in between say neither,
    and are counted. None by default; set together with `thumbs_up_from`."""

    @model_validator(mode="after")
    def _has_both_thresholds(self) -> Self:
        up, down = self.thumbs_up_from, self.thumbs_down_to
        if (up is None) != (down is None):
            raise ValueError("thumbs_up_from and thumbs_down_to, set together")
        if up is not None and down is not None and up <= down:
            raise ValueError(f"thumbs_up_from above thumbs_down_to, not {up:g} and {down:g}")
        return self

    def beside(self, folder: Path) -> Self:
        """The same, with relative paths looked for in `folder`."""
        scores = None if self.scores is None else folder / self.scores.expanduser()
        path = self.path if self.on_hub else folder / self.path.expanduser()
        return self.model_copy(update={"path": path, "scores": scores})

    @property
    def on_hub(self) -> bool:
        return str(self.path).startswith("hub:")

    def paths(self) -> list[Path]:
        """The file or folder, or what a pattern such as train-*.parquet matches: nothing where it matches none."""
        return [self.path] if self.on_hub else matches(self.path)


def matches(path: Path) -> list[Path]:
    """The path itself, `~` being the home folder; where it is a pattern (`*`, `?`, `[a-c]`), what matches, sorted."""
    path = path.expanduser()
    if not re.search(r"[*?[]", str(path)) or path.exists():
        return [path]
    start = Path(path.anchor or ".")
    try:
        return sorted(start.glob(str(path.relative_to(path.anchor))))
    except ValueError:  # `**` beside other characters
        return []


class Shot(Section):
    """A worked example, given as two turns after the system message."""

    prompt: str
    """What the user says in this example."""
    response: str
    """What the assistant answers in this example."""


def _as_sources(value: Any) -> Any:
    many = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, str | Path | dict | Source) for one in many):
        raise ValueError("a path, {path, weight, columns}, or a list of these")
    return [{"path": one} if isinstance(one, str | Path) else one for one in many]


def _kept_once(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    if any(source.weight > 1 for source in sources):
        raise ValueError("a weight of at most 1: only demonstrations are repeated")
    return sources


OneOrMore = str | Source | list[str | Source]
Sources = Annotated[tuple[Source, ...], BeforeValidator(_as_sources, json_schema_input_type=OneOrMore)]
SourcesOnce = Annotated[Sources, AfterValidator(_kept_once)]


class DataConfig(Section):
    """The user's files, relative to the run file, and how they are read."""

    demonstrations: Sources = ()
    """Answers as they should be, which `sft` trains on: a path, `{path, weight, columns}`, or a list of these. None by
    default."""
    prompts: SourcesOnce = ()
    """Prompts that `sample` answers for people to judge, and that `ppo` and `grpo` train on: a path, `{path, weight,
    columns}`, or a list of these. None by default."""
    held_out: SourcesOnce = ()
    """Prompts that are kept aside for `evaluate`, in the same forms. None by default."""
    preferences: SourcesOnce = ()
    """Pairs or thumbs that exist already, in the same forms; with these, `collect` asks nobody. None by default."""
    system: str | None = None
    """A system message that is put before every conversation that has none of its own; none by default."""
    few_shot: tuple[Shot, ...] = ()
    """Worked examples that are put before every conversation as earlier turns; they are never trained on. None by
    default."""
    columns: Columns = Field(default={})
    """The names of columns in the user's files, where they are not ours: our name, then the file's, such as `{prompt:
    question}`. Empty by default."""
    train_on: Literal["last", "all"] = "last"
    """Which of the assistant's turns in a demonstration are trained on: the `last` one, or `all` of them."""

    def beside(self, folder: Path) -> Self:
        """The same, with every relative path looked for in `folder`, which is that of the run file."""
        names = ("demonstrations", "prompts", "held_out", "preferences")
        return self.model_copy(update={name: tuple(s.beside(folder) for s in getattr(self, name)) for name in names})

    def sources(self, field: str) -> list[Source]:
        """The sources of demonstrations, prompts, held_out or preferences; columns common to all are filled in."""
        found: tuple[Source, ...] = getattr(self, field)
        return [s.model_copy(update={"columns": self.columns | s.columns}) for s in found]
