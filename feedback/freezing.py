"""The snapshot that `collect` freezes: what people said, what that became, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from trueup.feedback import adjudication, checks, examples, quality, sources, tasks, use
from trueup.feedback.examples import Dataset
from trueup.feedback.judgement import Thumb
from trueup.feedback.sources import Pulled, Source
from trueup.run.artifacts import write_jsonl
from trueup.run.stage import Context, Metrics

BETTER_ANSWERS = "better_answers.jsonl"
CHECKS = "checks.jsonl"  # what was said of gold questions and repetitions

IsHeldOut = Callable[[use.Messages], bool]


def frozen(
    context: Context, source: Source, held_out: float, is_held_out: IsHeldOut, next_step: str
) -> tuple[int, Pulled, Dataset]:
    """(questions that are new, what was said, what that became), which is written, too.

    `held_out` is the share of the prompts whose judgements nothing is trained on. What people said in use is taken in
    as well, but for the prompts of the held-out file, of which `is_held_out` tells by their messages. Raises
    FeedbackError, with the `next_step`, where nothing can be learned from it.
    """
    from_files = isinstance(source, sources.Files) and bool(source.judged)
    source = use.Beside(source, use.Use(context.run_dir / "store"), is_held_out)
    number, pulled = source.publish(), source.pull()
    judgements, settled = adjudication.settle(pulled.judgements)
    made = examples.build(
        judgements,
        pulled.completions,
        held_out=held_out,
        seed=context.run.seed,
        sides_are_thumbs=from_files,
    )
    made.counts.update(settled)
    if fault := examples.one_sided(pulled.judgements, made, next_step):
        source.note(f"{fault.found}; {fault.expected}")
        raise fault
    used = [row for row in pulled.completions if row.get("source") == use.SOURCE]
    others = [row for row in pulled.completions if row.get("source") != use.SOURCE]
    files = {"annotations": pulled.lines, "pairs": made.pairs, "rows": made.rows}
    files |= {use.FILE.removesuffix(".jsonl"): used} if used else {}
    for name, rows in (files | ({"completions": others} if from_files else {})).items():
        write_jsonl(context.out / f"{name}.jsonl", rows)
    if pulled.checks:
        write_jsonl(context.out / CHECKS, pulled.checks)
    return number, pulled, made


def of_people(context: Context, pulled: Pulled, dataset: Dataset, asked: set[str]) -> Metrics:
    """Figures of what people said in this round, of what they were `asked`."""
    rows = [row for row in pulled.completions if row.get("source") != use.SOURCE]
    said = [one for one in pulled.judgements if one.uid in asked and not one.adjudicated]
    ups = [one.up for one in said if isinstance(one, Thumb)]
    return {
        "num_texts_cleaned": tasks.num_cleaned(rows),
        "num_cut_at_length_limit": sum(row.get("finish") == "length" for row in rows),
        "num_annotators": len({one.annotator for one in said}),
        "num_prompts": dataset.num_prompts,
        **({"share_up": sum(ups) / len(ups)} if ups else {}),
        "counts": dataset.counts,
        "became": dataset.became,
        "not_trained_on": dataset.not_trained_on,
        "judged_under_guidelines": dict(Counter(one.guidelines or "none" for one in said)),
        **pulled.notes,
        "better_answers": better_answers(context, dataset),
        **quality.figures(said, rows),
        **checks.figures(pulled.checks, said),
    }


def of_files(context: Context, pulled: Pulled, dataset: Dataset) -> Metrics:
    """Figures of judgements that existed already."""
    return {
        "num_prompts": dataset.num_prompts,
        "counts": dataset.counts,
        "became": dataset.became,
        "not_trained_on": dataset.not_trained_on,
        "num_annotators": len({one.annotator for one in pulled.judgements if one.is_named}),
        **pulled.notes,
        "better_answers": better_answers(context, dataset),
        **quality.figures(pulled.judgements, pulled.completions),
    }


def of_use(context: Context, pulled: Pulled, dataset: Dataset) -> Metrics:
    """Figures of what people said in use, where nobody was asked."""
    return {
        "num_prompts": dataset.num_prompts,
        "counts": dataset.counts,
        "became": dataset.became,
        **pulled.notes,
        "better_answers": better_answers(context, dataset),
    }


def better_answers(context: Context, dataset: Dataset) -> dict[str, Any]:
    """Write the answers that people wrote themselves as demonstrations; `sft` does not use them by itself."""
    if not dataset.demonstrations:
        return {"num_written": 0}
    write_jsonl(context.out / BETTER_ANSWERS, dataset.demonstrations)
    next_step = "sft does not train on them by itself: add the file to data.demonstrations"
    return {
        "num_written": len(dataset.demonstrations),
        "num_pairs": sum(pair["kind"] == "edit" for pair in dataset.pairs),
        "file": BETTER_ANSWERS,
        "next": next_step,
    }
