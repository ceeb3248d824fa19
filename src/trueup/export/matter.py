"""What all cards of one export have in common, and their front matter as the hub takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from trueup.export.licenses import License
from trueup.export.markdown import code
from trueup.export.origin import Origin
from trueup.export.push import TAG
from trueup.export.receipt import Receipt
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
    history: Sequence[dict[str, Any]]  # the records of the stages before the export, in order
    round_dir: Path
    where: Mapping[str, str]  # owner/name of each form that is pushed, else its folder in the export

    def pushed(self, form: str) -> str | None:
        """owner/name of a form on the hub."""
        name = self.where.get(form, "")
        return name if is_hub_id(name) else None

    @property
    def fitted(self) -> bool:
        """The adapter was fitted anew, for the base in 16 bits; it is then a LoRA adapter, whatever was trained."""
        return bool(self.run.section("export").model_dump().get("adapter_for") == "16bit")

    @property
    def kind(self) -> str:
        """lora, dora or adalora: the adapter that was exported."""
        kind = self.run.adapter.kind
        return "lora" if self.fitted or kind == "qlora" else kind

    @property
    def fingerprint(self) -> str:
        """Of the aligned adapter."""
        method = self.run.method
        known = read_json(self.round_dir / method / "record.json")
        found = known or next((record for record in reversed(self.history) if record["stage"] == method), {})
        return str(found.get("fingerprint", ""))


def front_matter(form: Form, subject: Subject) -> ModelCardData:
    """As the hub takes it. A base that is on no hub is left out: the hub takes ids alone."""
    from huggingface_hub import ModelCardData

    run, base_model, relation = subject.run, subject.origin.name if subject.origin.on_hub else None, RELATIONS[form]
    if form == "gguf" and (merged := subject.pushed("merged")):
        base_model, relation = merged, "quantized"
    sources = [s for field in ("demonstrations", "prompts", "preferences") for s in run.data.sources(field)]
    datasets = {str(source.path).removeprefix("hub:").partition(":")[0] for source in sources if source.on_hub}
    known: dict[str, Any] = {
        "base_model": base_model,
        "base_model_relation": relation if base_model else None,
        "datasets": sorted(datasets) or None,
        "library_name": LIBRARIES[form],
        "pipeline_tag": "text-generation",
        "tags": [TAG, run.method, *([subject.kind] if form == "adapter" else [])],
        **(subject.license.front_matter() if subject.license else {}),
    }
    return ModelCardData(**{key: value for key, value in known.items() if value is not None})


def what(form: Form, subject: Subject) -> str:
    """What the form is, a sentence."""
    named, run = subject.origin, subject.run
    base_model = code(named.name) + (f" (revision {code(named.revision)})" if named.revision else "")
    kind = {"dora": "DoRA", "adalora": "AdaLoRA"}.get(subject.kind, "LoRA")
    bits = "16 bits" if subject.fitted or run.adapter.kind == "lora" else "4 bits"
    said = {
        "adapter": f"A {kind} adapter for {base_model} in {bits}",
        "merged": f"{base_model} with a {kind} adapter merged into its weights, in bf16",
        "gguf": f"{base_model} with a {kind} adapter merged into its weights, as GGUF files for llama.cpp and Ollama",
    }[form]
    return f"{said}, aligned by {run.method.upper()}."
