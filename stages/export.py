"""export: (Adapter, held-out prompts) -> Export. Adapter, merged weights, GGUF files; each measured, with a card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, field_validator, model_validator

from trueup.planning import loads
from trueup.run.artifacts import Adapter, Export, records
from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.export.checks import Known
    from trueup.planning.lengths import Lengths

Form = Literal["adapter", "merged", "gguf", "ollama"]
PUSHING = ("push", "push_public", "push_dry_run")
GGUFType = Literal["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]


BASE = r"^[\w.-]+/[\w.-]+(@\S+)?$"
LICENSE = r"^[a-z0-9][a-z0-9.+-]*$"


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _forms(value: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(form for form in get_args(Form) if form in value)


def _types(value: tuple[GGUFType, ...]) -> tuple[GGUFType, ...]:
    return tuple(kind for kind in get_args(GGUFType) if kind in value)


class Config(Section):
    """What is written for those who will use the model."""

    to: Annotated[tuple[Form, ...], BeforeValidator(_listed), AfterValidator(_forms), Field(min_length=1)] = (
        "adapter",
        "merged",
    )
    """What is written: `adapter` (for peft and vLLM), `merged` (whole weights), `gguf` (for llama.cpp), `ollama` (a
    Modelfile and the GGUF that it names)."""
    gguf_types: Annotated[
        tuple[GGUFType, ...], BeforeValidator(_listed), AfterValidator(_types), Field(min_length=1)
    ] = ("f16", "q8_0", "q4_0")
    """The types of the GGUF files: `f16` and `bf16` (16 bits), or blocks of 8 bits (`q8_0`), 5 bits (`q5_1`, `q5_0`)
    or 4 bits (`q4_1`, `q4_0`), with a scale each, and an offset too for those that end in 1."""
    adapter_for: Literal["4bit", "16bit"] = "4bit"
    """The base that the exported adapter is put on: the one in 4 bits that it was trained on (`4bit`), or the one in 16
    bits (`16bit`), for which it is fitted anew."""
    base: str | None = Field(default=None, json_schema_extra={"pattern": BASE})
    """The base's name on the hub, `owner/name` or `owner/name@revision`, where `model.base` is a folder; by default
    such a base has no name there."""
    license: str | None = Field(default=None, json_schema_extra={"pattern": LICENSE})
    """The license of the base by its identifier on the hub, such as `apache-2.0` or `llama3.1`; by default it is read
    from the base's card or its LICENSE file."""
    num_prompts: PositiveInt = 20
    """Held-out prompts on which each way of loading what was exported is compared with the model that was trained."""
    push: str | None = None
    """The name on the hub, `owner/name`, that what was exported is pushed to, as private repositories; the token is
    taken from the environment variable HF_TOKEN. By default nothing is pushed."""
    push_public: bool = False
    """Push to public repositories instead of private ones."""
    push_dry_run: bool = False
    """Only list what would be pushed."""
    merged: bool = True
    """Whether merged weights may be written; `false` is the former way to say `to: adapter`."""

    @field_validator("base")
    @classmethod
    def _is_a_name(cls, base: str | None) -> str | None:
        if base is not None and not re.fullmatch(BASE, base):
            raise ValueError("owner/name or owner/name@revision, the base's name on the hub")
        return base

    @field_validator("license")
    @classmethod
    def _is_an_identifier(cls, license: str | None) -> str | None:
        if license is not None and not re.fullmatch(LICENSE, license):
            raise ValueError("a license's identifier on the hub, in small letters, such as apache-2.0, mit or llama3.1")
        return license

    @field_validator("push")
    @classmethod
    def _has_an_owner(cls, push: str | None) -> str | None:
        if push is not None and not re.fullmatch(r"[^/\s]+/[^/\s]+", push):
            raise ValueError("owner/name" if push else "owner/name; is the variable set that holds it?")
        return push

    @model_validator(mode="after")
    def _no_option_is_ignored(self) -> Config:
        faults = []
        if not self.merged and "to" in self.model_fields_set and set(self.to) != {"adapter"}:
            faults.append("merged: false means to: adapter; leave one of the two out")
        if self.push is None:
            faults += [
                f"{key} (--{key.replace('_', '-')}) says how to push, and nothing is pushed: set push (--push) "
                "as well, or leave it out"
                for key in ("push_public", "push_dry_run")
                if getattr(self, key)
            ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def forms(self) -> tuple[Form, ...]:
        """What is written."""
        return self.to if self.merged else ("adapter",)


def run(config: Config, context: Context, aligned: Adapter) -> Metrics:
    """Write what was aligned in each form, measure how far each is from it, and say so in a receipt and a card."""
    from trueup.export import card, summing, writing
    from trueup.progress import parts

    known = foresee(config, context)
    settings = config.model_dump(include={"gguf_types", "adapter_for", "base", "num_prompts"})
    wanted = writing.Wanted(to=config.forms, **settings)
    with parts("export", writing.num_parts(wanted, known)) as say:
        written = writing.Written(context.run, aligned.path, _start(context), context.out, known, wanted, say)
        written.write()
    history = lineage(context)
    made = summing.receipt(written)
    made.write(context.out)
    unsaid = card.write(context.out, made, context.run, history)
    merged = made.way("merged")
    return {
        "merge_kl_nats_per_token": None if merged is None else merged.kl_nats_per_token,
        "ways": {way.name: way.kl_nats_per_token for way in made.ways},
        "ship": made.ship,
        "said": [*(way.in_words() for way in made.ways), *made.advice, *made.notes, *unsaid, *left_out(config)],
        "preflight": made.tokens.model_dump(),
    }


def left_out(config: Config) -> list[str]:
    """What goes with a form elsewhere, and is not there."""
    if {"gguf", "ollama"} & set(config.forms) and "adapter" not in config.forms:
        return ["gguf/ holds no adapter alone: it is made from adapter/, so add adapter to `export.to` if you want it."]
    return []


def lineage(context: Context) -> list[dict[str, Any]]:
    """The records of the stages that the exported weights come from, in order; exports are none of them."""
    found = records(context.run_dir, context.run.round, before="export", variant=context.run.variant)
    return [record for record in found if record["stage"] != "export"]


def _start(context: Context) -> Path | None:
    """The adapter after fine-tuning, which alignment started from; None where its files are gone."""
    start = context.run_dir / "sft"
    return start if all((start / name).is_file() for name in Adapter.FILES) else None


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How far each way of loading it is from the model that was trained, and which one to ship."""
    return list(metrics.get("said", ()))  # which exports of earlier versions lack


def since(config: Config, context: Context, made: Export, aligned: Adapter) -> str:
    """That an earlier version made it, when one did: its files are for the machine that they were made on."""
    from trueup.export.receipt import NAME

    if (made.path / NAME).exists():
        return ""
    return (
        f"an earlier version made this export: it has no {NAME}, and its adapter_config.json names the base by its "
        "place on that machine; to replace it: --rebuild"
    )


def foresee(config: Config, context: Context) -> Known:
    """Raises what an export would be refused for, long before it begins; returns what is known of the base."""
    from trueup.export import checks, push

    known = checks.check(context.run, context.out, config.forms, config.gguf_types, config.adapter_for)
    if config.push is not None:
        forms = ["gguf" if form == "ollama" else form for form in config.forms]  # the GGUF files that it names
        push.repositories(config.push, forms)
        if not config.push_dry_run:
            push.check(config.push, forms, private=not config.push_public)
    return known


def afterwards(config: Config, context: Context) -> list[str]:
    """Push what was exported, where that is wanted; returns what to say of it."""
    from trueup.export import publish, push

    if config.push is None:
        return []
    with publish.staged(context, lineage(context), config.push) as parcels:
        if config.push_dry_run:
            return push.lines(parcels)
        return [f"pushed to {address}" for address in push.send(parcels, private=not config.push_public)]


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned | None:
    """What it holds in memory and computes."""
    wanted = values["merged"] and set(values["to"]) != {"adapter"}
    measured = values["num_prompts"] * (lengths.prompt_tokens or loads.longest_prompt(lengths))
    work = loads.Work(read_tokens=5 * measured, sampled_tokens=values["num_prompts"] * loads.ANSWER_TOKENS)
    return loads.Load(copy="host" if wanted else "none"), work


STAGE = Stage(
    alone=True,
    name="export",
    config=Config,
    makes=Export,
    run=run,
    needs={"aligned": "aligned"},
    reads=("held_out",),
    help="The adapter, merged weights, GGUF files and a model card.",
    plan=plan,
    cure={"to": "adapter"},
    says=says,
    foresee=foresee,
    flags=("to", *PUSHING),
    apart=PUSHING,
    afterwards=afterwards,
    since=since,
)
