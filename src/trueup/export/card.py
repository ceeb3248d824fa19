"""The model card of one exported form: front matter for the hub, and what a stranger must know before using it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from trueup import __version__
from trueup.export import licenses, origin, serving, story, usage
from trueup.export.licenses import License
from trueup.export.markdown import block, code, escape
from trueup.export.origin import Origin
from trueup.export.push import TAG
from trueup.export.receipt import Receipt
from trueup.export.usage import Usage
from trueup.run.base import is_hub_id
from trueup.run.files import read_json
from trueup.run.run_file import RunFile

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

Form = Literal["adapter", "merged", "gguf"]
FORMS: tuple[Form, ...] = get_args(Form)
# base_model_relation: by the hub's own words, "merge" is a merge of several models, and this is one, trained further
RELATIONS: dict[Form, str] = {"adapter": "adapter", "merged": "finetune", "gguf": "finetune"}
LIBRARIES: dict[Form, str] = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}


@dataclass(frozen=True)
class Subject:
    """What all cards of one export have in common."""

    run: RunFile
    receipt: Receipt
    origin: Origin
    license: License | None
    history: Sequence[dict[str, Any]]  # the records of the stages before the export, oldest first
    round_dir: Path
    where: Mapping[str, str]  # owner/name of each form that is pushed, else its folder in the export

    def pushed(self, form: str) -> str | None:
        """owner/name of a form on the hub."""
        name = self.where.get(form, "")
        return name if is_hub_id(name) else None


def write(
    out: Path,
    receipt: Receipt,
    run: RunFile,
    history: Sequence[dict[str, Any]],
    repositories: Mapping[str, str] | None = None,
) -> None:
    """Write README.md into each form's folder below `out`, an export, and one that points to them into `out` itself.

    `out` stands in the folder of its round. `repositories` are the names on the hub of the forms that are pushed.
    """
    forms = [form for form in FORMS if (out / form).is_dir()]
    config = run.section("export").model_dump()
    named = origin.of(run.model.base, config.get("base"))
    subject = Subject(
        run=run,
        receipt=receipt,
        origin=named,
        license=licenses.of_run(run.model.base, config.get("license"), named),
        history=history,
        round_dir=out.parent,
        where={form: form for form in forms} | dict(repositories or {}),
    )
    for form in forms:
        (out / form / "README.md").write_text(render(form, subject, _usage(out, form, subject)), encoding="utf-8")
    links = "".join(f"- [{form}/]({form}/README.md): {_what(form, subject)}\n" for form in forms)
    (out / "README.md").write_text(f"# {escape(run.name)}\n\n{_ships(receipt)}\n\n{links}", encoding="utf-8")


def render(form: Form, subject: Subject, use: Usage) -> str:
    """The card of one form, Markdown with front matter."""
    from jinja2 import Environment, StrictUndefined

    run, records = subject.run, subject.history
    template = files("trueup.export").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - Markdown, whose values are escaped one by one
    return environment.from_string(template).render(
        front_matter=front_matter(form, subject).to_yaml(),
        title=escape((subject.pushed(form) or run.name).rpartition("/")[2]),
        what=_what(form, subject),
        ships=_ships(subject.receipt),
        system=block(run.data.system) if run.data.system else "",
        method=run.method.upper(),
        trained_on=story.trained_on(records),
        judges=story.judges(records, subject.round_dir, run.method),
        verdict=story.verdict(records, _fingerprint(subject)),
        receipt=_receipt(subject.receipt),
        transformers=usage.transformers(use, form),
        vllm=usage.vllm(use, form, code(subject.pushed("merged") or "merged/")),
        ollama=usage.ollama(use),
        llama_cpp=usage.llama_cpp(use),
        license=_license(subject.license),
        notes=[escape(note) for note in subject.origin.notes],
        lineage=[_row(record) for record in records],
        version=__version__,
    )


def front_matter(form: Form, subject: Subject) -> ModelCardData:
    """As the hub takes it. A base that is on no hub is left out: the hub takes ids alone."""
    from huggingface_hub import ModelCardData

    run, base_model, relation = subject.run, subject.origin.name if subject.origin.on_hub else None, RELATIONS[form]
    if form == "gguf" and (merged := subject.pushed("merged")):
        base_model, relation = merged, "quantized"
    sources = [s for field in ("demonstrations", "prompts", "preferences") for s in run.data.sources(field)]
    datasets = {str(source.path).removeprefix("hub:").partition(":")[0] for source in sources if source.on_hub}
    kind = "lora" if run.adapter.kind == "qlora" else run.adapter.kind
    known: dict[str, Any] = {
        "base_model": base_model,
        "base_model_relation": relation if base_model else None,
        "datasets": sorted(datasets) or None,
        "library_name": LIBRARIES[form],
        "pipeline_tag": "text-generation",
        "tags": [TAG, run.method, *([kind] if form == "adapter" else [])],
        **(subject.license.front_matter() if subject.license else {}),
    }
    return ModelCardData(**{key: value for key, value in known.items() if value is not None})


def _what(form: Form, subject: Subject) -> str:
    named, run = subject.origin, subject.run
    base_model = code(named.name) + (f" (revision {code(named.revision)})" if named.revision else "")
    kind = {"dora": "DoRA", "adalora": "AdaLoRA"}.get(run.adapter.kind, "LoRA")
    what = {
        "adapter": f"A {kind} adapter for {base_model}",
        "merged": f"{base_model} with a {kind} adapter merged into its weights, in bf16",
        "gguf": f"{base_model} with a {kind} adapter merged into its weights, as GGUF files for llama.cpp and Ollama",
    }[form]
    return f"{what}, aligned by {run.method.upper()}."


def _ships(receipt: Receipt) -> str:
    return escape(" ".join(receipt.advice))


def _receipt(receipt: Receipt) -> str:
    rows = "".join(
        f"| {escape(way.path)} | {escape(way.how)} | {_figure(way.kl_nats_per_token, '.4f')} | "
        f"{_figure(way.agreement, '.1%')} | {escape(way.why_not or '')} |\n"
        for way in receipt.ways
    )
    moved = receipt.moved_by_alignment
    said = [
        f"Trained and judged was {escape(receipt.trained_as)}. Each way of loading this export was compared with it on "
        f"{escape(receipt.texts)} ({receipt.num_tokens:,} tokens).",
        *(
            []
            if moved is None
            else [f"For comparison: alignment itself moved the model by {moved:.4f} nats per token."]
        ),
        *(escape(note) for note in receipt.notes),
    ]
    head = "| what | loaded how | KL, nats per token | same greedy token | |\n|---|---|---|---|---|\n"
    return "\n".join(said) + f"\n\n{head}{rows}"


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)


def _fingerprint(subject: Subject) -> str:
    """Of the aligned adapter."""
    method = subject.run.method
    known = read_json(subject.round_dir / method / "record.json")
    found = known or next((r for r in reversed(subject.history) if r["stage"] == method), {})
    return str(found.get("fingerprint", ""))


def _usage(out: Path, form: Form, subject: Subject) -> Usage:
    run, config = subject.run, read_json(out / "adapter" / "adapter_config.json") or {}
    evaluate = run.section("evaluate")
    ggufs = sorted(path.name for path in (out / "gguf").glob("*.gguf"))
    best = next((name for name in ggufs if "q8" in name.lower()), ggufs[0] if ggufs else None)
    pushed = subject.pushed("gguf")
    return Usage(
        where=subject.where[form],
        origin=subject.origin,
        quantization=read_json(out / "adapter" / "quantization_config.json"),
        rank=serving.max_rank(config),
        refusals=tuple(serving.refusals(config)),
        system=run.data.system,
        max_new_tokens=getattr(evaluate, "max_new_tokens", 64),
        temperature=getattr(evaluate, "temperature", 1.0),
        gguf=best and (pushed or f"gguf/{best}"),
        ollama=best and (pushed or ("ollama" if (out / "ollama").is_dir() else None)),
    )


def _license(found: License | None) -> str:
    if found is None:
        return (
            "The license of the base is not known: neither the run file, nor the base's card, nor a LICENSE file says "
            "it. Find it out before you use or pass on this model. Whoever exports it again can say it in the run "
            "file's `export.license`."
        )
    named = code(found.identifier) + (f", {escape(found.name)}" if found.name else "")
    link = f" ({escape(found.link)})" if found.link else ""
    return f"{named}{link}: that of the base, by {escape(found.found_in)}. It holds for what is made from it as well."


def _row(record: dict[str, Any]) -> dict[str, str]:
    figures = story.brief(record["metrics"])
    return {"stage": escape(record["stage"]), "fingerprint": record["fingerprint"][:16], "figures": figures}
