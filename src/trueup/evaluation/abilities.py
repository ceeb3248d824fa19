"""What a model should not lose while it is aligned: how it predicts a general text, what it answers, what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, field_validator

from trueup.evaluation.intervals import change_by
from trueup.evaluation.refusals import Refuses
from trueup.run.section import Section

Row = dict[str, Any]


class AbilitySettings(Section):
    """What is measured besides who is better, so that `trueup ship` sees what was lost."""

    general_text: Path | None = None
    """A text that has nothing to do with the run's data, on which perplexities are measured: a .txt whose paragraphs
    are documents, or a .jsonl with a field `text`; a relative path is looked for beside the run file. By default the
    language reference of Python, which every run has, in English."""
    refusal_openings: tuple[str, ...] = ()
    """How an answer begins that refuses, in the language of the answers; upper and lower case are alike. By default
    English openings (see docs/rounds.md)."""
    refusal_function: str | None = None
    """A Python function that says which answers refuse, `module:function`, called as reward functions are: 0.5 or more
    is a refusal. None by default."""

    lm_eval_tasks: tuple[str, ...] = ()
    """Tasks of lm-eval that SFT and the aligned model are given: names, or the .yaml files of tasks of your own beside
    the run file. They need `pip install trueup[lm-eval]`. None by default."""
    lm_eval_limit: PositiveInt | None = None
    """The number of questions that are asked of each task, the first ones; all by default."""

    @field_validator("refusal_openings")
    @classmethod
    def _say_something(cls, openings: tuple[str, ...]) -> tuple[str, ...]:
        if any(not opening.strip() for opening in openings):
            raise ValueError("openings with a letter in them: an empty one would begin every answer")
        return openings


def refusals(
    rule: tuple[str, Refuses],
    prompts: list[list[dict[str, str]]],
    prompt_ids: Sequence[str],
    answers: Mapping[str, list[str]],
) -> Row:
    """For the record: the share of each contestant's `answers` that refuse, and the aligned model's change from SFT.

    `prompts`, `prompt_ids` and the answers of each contestant are (answers,). The interval of the change is paired and
    clustered by prompt.
    """
    name, refuses = rule
    found = {label: [float(one) for one in refuses(prompts, texts)] for label, texts in answers.items()}
    return {
        "rule": name,
        "share": {label: sum(values) / len(values) for label, values in found.items()},
        "change_from_sft": change_by(prompt_ids, found["aligned"], found["sft"]),
    }


def says(metrics: Mapping[str, Any]) -> list[str]:
    """What an evaluation found of it, a line; nothing of one that did not look."""
    found, lines = metrics.get("abilities") or {}, []
    if text := found.get("general_text"):
        lines.append(f"general text: {of_text(text)}")
    if refused := found.get("refusals"):
        lines.append(f"refusals: {of_refusals(refused)}")
    lines += [f"{task}: {of_task(one)}" for task, one in (found.get("lm_eval") or {}).items()]
    return lines


def of_text(found: Row) -> str:
    """The change on the general text in words, against SFT and against the base."""
    one, base = found["change_from"]["sft"], found["change_from"].get("base")
    said = f"{one['estimate']:+.3f} nats per token against SFT ({one['low']:+.3f} to {one['high']:+.3f})"
    if base is not None:
        said += f", {base['estimate']:+.3f} against the base"
    return f"{said}; noise floor {found['noise_floor']:.3f}, {found['num_documents']} documents of {found['text']}"


def of_refusals(found: Row) -> str:
    """How many answers refuse, in words."""
    said, change = f"{found['share']['aligned']:.1%} of answers, by {found['rule']}", found["change_from_sft"]
    if change is None:
        return f"{said}; SFT {found['share']['sft']:.1%}"
    return f"{said}; {change['estimate']:+.1%} against SFT ({change['low']:+.1%} to {change['high']:+.1%})"


def of_task(found: Row) -> str:
    """A task of lm-eval in words: its figure, and the change from SFT."""
    change = found["gain_over_sft"]
    said = f"{found['metric']} {found['aligned']:.3g}, {found['num_questions']:,} questions"
    if change is None:
        return f"{said}; SFT {found['sft']:.3g}"
    return f"{said}; better than SFT by {change['estimate']:+.3g} ({change['low']:+.3g} to {change['high']:+.3g})"
