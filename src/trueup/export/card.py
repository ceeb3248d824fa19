"""The model card of one exported form: front matter for the hub, and what a stranger must know before using it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from trueup import __version__
from trueup.export import licenses, origin, story, usage
from trueup.export.licenses import License
from trueup.export.markdown import block, code, escape
from trueup.export.matter import FORMS, Form, Subject, front_matter, what
from trueup.export.receipt import Receipt
from trueup.export.usage import Usage
from trueup.run.run_file import RunFile

UNLICENSED = "The license of the base is not known; before you publish, set export.license and export again."


def write(
    out: Path,
    receipt: Receipt,
    run: RunFile,
    history: Sequence[dict[str, Any]],
    repositories: Mapping[str, str] | None = None,
) -> list[str]:
    """Write README.md into each form's folder below `out`, an export, and one that points to them into `out` itself.

    `out` stands in the folder of its round. `repositories` are the names on the hub of the forms that are pushed.
    Returns what the cards could not say, a sentence each.
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
        (out / form / "README.md").write_text(render(form, subject, usage.of(out, form, subject)), encoding="utf-8")
    links = "".join(f"- [{form}/]({form}/README.md): {what(form, subject)}\n" for form in forms)
    (out / "README.md").write_text(
        f"# {escape(run.name)}\n\n{escape(' '.join(receipt.advice))}\n\n{links}", encoding="utf-8"
    )
    return [] if subject.license else [UNLICENSED]


def render(form: Form, subject: Subject, use: Usage) -> str:
    """The card of one form, Markdown with front matter."""
    from jinja2 import Environment, StrictUndefined

    run, records = subject.run, subject.history
    template = files("trueup.export").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - Markdown, whose values are escaped one by one
    return environment.from_string(template).render(
        front_matter=front_matter(form, subject).to_yaml(),
        title=escape((subject.pushed(form) or run.name).rpartition("/")[2]),
        what=what(form, subject),
        ships=escape(" ".join(subject.receipt.advice)),
        system=block(run.data.system) if run.data.system else "",
        method=run.method.upper(),
        trained_on=story.trained_on(records),
        judges=story.judges(records, subject.round_dir, run.method),
        verdict=story.verdict(records, subject.fingerprint),
        receipt=story.measured(subject.receipt),
        transformers=usage.transformers(use, form),
        vllm=usage.vllm(use, form, code(subject.pushed("merged") or "merged/")),
        ollama=usage.ollama(use),
        llama_cpp=usage.llama_cpp(use),
        license=_license(subject.license),
        notes=[escape(note) for note in subject.origin.notes],
        lineage=[_row(record) for record in records],
        version=__version__,
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
