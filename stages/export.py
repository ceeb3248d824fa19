"""export: (Adapter, held-out prompts) -> Export. Adapter, merged weights, GGUF files; each measured, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

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


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class Config(Section):
    """What is written for those who will use the model."""

    to: Annotated[tuple[Form, ...], BeforeValidator(_listed), Field(min_length=1)] = ("adapter", "merged")
    """What is written: `adapter` (for peft and vLLM), `merged` (whole weights), `gguf` (for llama.cpp), `ollama` (a
    Modelfile and the GGUF that it names)."""
    gguf_types: Annotated[tuple[GGUFType, ...], BeforeValidator(_listed), Field(min_length=1)] = ("f16", "q8_0", "q4_0")
    """The types of the GGUF files: `f16` and `bf16` (16 bits), or blocks of 8 bits (`q8_0`), 5 bits (`q5_1`, `q5_0`)
    or 4 bits (`q4_1`, `q4_0`), with a scale each, and an offset too for those that end in 1."""
    adapter_for: Literal["4bit", "16bit"] = "4bit"
    """The base that the exported adapter is put on: the one in 4 bits that it was trained on (`4bit`), or the one in 16
    bits (`16bit`), for which it is fitted anew."""
    base: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+(@\S+)?$")
    """The base's name on the hub, `owner/name` or `owner/name@revision`, where `model.base` is a folder; by default
    such a base has no name there."""
    license: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.+-]*$")
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

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Config:
        if not self.merged and "to" in self.model_fields_set and set(self.to) != {"adapter"}:
            raise ValueError("merged: false means to: adapter; leave one of the two out")
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
    history = records(context.run_dir)
    made = summing.receipt(written)
    made.write(context.out)
    unsaid = card.write(context.out, made, context.run, history)
    merged = made.way("merged")
    return {
        "merge_kl_nats_per_token": None if merged is None else merged.kl_nats_per_token,
        "ways": {way.name: way.kl_nats_per_token for way in made.ways},
        "ship": made.ship,
        "said": [*(way.in_words() for way in made.ways), *made.advice, *made.notes, *unsaid],
        "preflight": made.tokens.model_dump(),
    }


def _start(context: Context) -> Path | None:
    """The adapter after fine-tuning, which alignment started from; None where its files are gone."""
    start = context.run_dir / "sft"
    return start if all((start / name).is_file() for name in Adapter.FILES) else None


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How far each way of loading it is from the model that was trained, and which one to ship."""
    return list(metrics.get("said", ()))  # which exports of earlier versions lack


def foresee(config: Config, context: Context) -> Known:
    """Raises what an export would be refused for, long before it begins; returns what is known of the base."""
    from trueup.export import checks, push

    known = checks.check(context.run, context.out, config.forms, config.gguf_types, config.adapter_for)
    if config.push is not None and not config.push_dry_run:
        push.check(config.push, config.forms, private=not config.push_public)
    return known


def afterwards(config: Config, context: Context) -> list[str]:
    """Push what was exported, where that is wanted; returns what to say of it."""
    from trueup.export import publish, push

    if config.push is None:
        return []
    with publish.staged(context, records(context.run_dir), config.push) as parcels:
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
)
