"""collect: (Completions | preferences) -> Feedback. What people said in Label Studio, or before, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt

from trueup.errors import FeedbackError, TrueupError
from trueup.run import enough
from trueup.run.artifacts import Completions, Feedback, read_jsonl, write_jsonl
from trueup.run.files import read_json
from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.feedback.examples import Dataset
    from trueup.feedback.sources import Pulled

BETTER_ANSWERS = "better_answers.jsonl"


class Config(Section):
    """How much is labelled before the snapshot is frozen."""

    annotations_per_completion: PositiveInt = 1
    """People who judge each completion."""
    min_labelled_fraction: float = Field(default=1.0, ge=0, le=1)
    """The share of the completions that have to be judged before the judgements are frozen."""
    held_out_fraction: float = Field(default=0.15, ge=0, lt=1)
    """The share of the prompts whose judgements nothing is trained on, and that measure the reward model."""


def run(config: Config, context: Context, completions: Completions | None = None) -> Metrics:
    """Publish what is missing, pull every judgement into the store, freeze pairs and rows. Raises Waiting until then.

    Without `completions` the preferences of `data.preferences` are frozen: there is nothing to ask anybody.
    """
    from trueup.feedback import sources

    if completions is None:
        return _ready_made(config, context)
    rows = completions.rows()
    source = sources.LabelStudio(
        context.run.labelstudio,
        context.run_dir / "store",
        f"trueup {context.run.name}",
        rows,
        each=config.annotations_per_completion,
        fraction=config.min_labelled_fraction,
    )
    num_published, pulled = source.publish(), source.pull()
    dataset = _dataset(config, context, pulled)
    if fault := _one_sided(pulled, dataset, "change or add some in Label Studio, then run the same command again"):
        source.note(f"{fault.found}; {fault.expected}")
        raise fault
    _freeze(context, pulled.lines, dataset)
    return {"num_published": num_published, **_of_people(context, pulled, dataset, set(source.asked))}


def _dataset(config: Config, context: Context, pulled: Pulled) -> Dataset:
    from trueup.feedback import examples

    return examples.build(
        pulled.judgements, pulled.completions, held_out=config.held_out_fraction, seed=context.run.seed
    )


def _of_people(context: Context, pulled: Pulled, dataset: Dataset, asked: set[str]) -> Metrics:
    """Figures of what people said in this round, of what they were `asked`."""
    from trueup.feedback import quality, tasks
    from trueup.feedback.judgement import Thumb

    rows = pulled.completions
    said = [one for one in pulled.judgements if one.uid in asked]
    ups = [one.up for one in said if isinstance(one, Thumb)]
    return {
        "num_texts_cleaned": tasks.num_cleaned(rows),
        "num_cut_at_length_limit": sum(row.get("finish") == "length" for row in rows),
        "num_annotators": len({one.annotator for one in said}),
        "num_prompts": dataset.num_prompts,
        **({"share_up": sum(ups) / len(ups)} if ups else {}),
        "counts": dataset.counts,
        "became": dataset.became,
        **pulled.notes,
        "better_answers": _better_answers(context, dataset),
        **quality.figures(said, rows),
    }


def _ready_made(config: Config, context: Context) -> Metrics:
    """Pairs and thumbs the user already has become the same snapshot as judgements from Label Studio."""
    from trueup.data import read_preferences
    from trueup.data.report import ReadReport, tell
    from trueup.feedback import sources

    judged, unusable = read_preferences(context.run.data, context.run.seed, report := ReadReport())
    notes = {"num_judged": len(judged), "unusable_rows": unusable, "data": tell(report)}
    pulled = sources.Files(judged, notes).pull()
    dataset = _dataset(config, context, pulled)
    if fault := _one_sided(
        pulled, dataset, "look at the label column: trueup data check RUN.yaml; or add thumbs of the other kind"
    ):
        raise fault
    _freeze(context, pulled.lines, dataset)
    return {
        "num_prompts": dataset.num_prompts,
        "counts": dataset.counts,
        "became": dataset.became,
        **pulled.notes,
    }


def _one_sided(pulled: Pulled, dataset: Dataset, next_step: str) -> FeedbackError | None:
    """The error of judgements that tell nothing apart: no pair, and no two kinds of thumbs."""
    from trueup.feedback.judgement import Thumb

    labels = {row["label"] for row in dataset.rows}
    if dataset.pairs or len(labels) > 1:
        return None
    thumbs = [one for one in pulled.judgements if isinstance(one, Thumb)]
    if len(thumbs) == len(pulled.judgements):
        found = f"only thumbs {'up' if True in labels else 'down'}, {dataset.counts['votes']} of them"
        expected = "both kinds: alignment learns from the difference"
    else:
        found = (
            f"{len(pulled.judgements)} judgements, and none prefers an answer to another ({_in_words(dataset.became)})"
        )
        expected = "some that do: alignment learns from the difference"
    return FeedbackError("collect", found=found, expected=expected, next_step=next_step)


def _in_words(became: Mapping[str, Mapping[str, int]]) -> str:
    """How many judgements became what."""
    return "; ".join(
        f"{sum(found.values()):,} {kind}{'' if sum(found.values()) == 1 else 's'}: "
        + ", ".join(f"{what} {count:,}" for what, count in found.items())
        for kind, found in became.items()
    )


def _freeze(context: Context, annotations: list[dict[str, Any]], dataset: Dataset) -> None:
    write_jsonl(context.out / "annotations.jsonl", annotations)
    write_jsonl(context.out / "pairs.jsonl", dataset.pairs)
    write_jsonl(context.out / "rows.jsonl", dataset.rows)


def _better_answers(context: Context, dataset: Dataset) -> dict[str, Any]:
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


def since(config: Config, context: Context, made: Feedback, completions: Completions | None = None) -> str:
    """What people changed in Label Studio since the snapshot `made`, in a sentence; empty when nothing."""
    from trueup.feedback import server
    from trueup.feedback.project import Project

    settings = context.run.labelstudio
    if completions is None:
        return ""
    if settings.url is None and not server.is_running(settings.data_dir):
        return "Label Studio is not running, and so was not asked for newer verdicts"
    try:
        project = Project(settings, context.run_dir / "store")
        asked = [row["uid"] for row in completions.rows()]
        changes = project.changes(asked, read_jsonl(made.path / "annotations.jsonl"))
    except TrueupError as error:
        return f"Label Studio could not be asked for newer verdicts: {error.found}"
    return f"Label Studio holds newer verdicts ({changes}); to take them: --rebuild" if changes else ""


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How people judged, the pairs that gives, and the prompts that give none."""
    counts, became = metrics["counts"], metrics.get("became", {})
    judged = f"{counts['votes']:,} judgements"
    if became.keys() - {"thumb", "edit"} or not counts["votes"]:
        judged = f"{sum(sum(found.values()) for found in became.values()):,} judgements ({_in_words(became)})"
    if "share_up" in metrics:
        judged += f", {metrics['share_up']:.0%} of {'them' if became.keys() <= {'thumb'} else 'the'} thumbs up"
    without = counts.get("prompts_without_pairs", 0)
    unusable = sum((metrics.get("unusable_annotations") or metrics.get("unusable_rows") or {}).values())
    return [
        f"{judged}, {unusable:,} more cannot be used: {counts['pairs']:,} pairs; {without:,} prompts give none",
        *_set_aside(metrics),
        *enough.few(metrics.get("num_prompts", enough.JUDGED_PROMPTS), enough.JUDGED_PROMPTS, "judged prompts"),
    ]


def _set_aside(metrics: Metrics) -> list[str]:
    """What people did in Label Studio that no stage uses, a line each."""
    written = (metrics.get("better_answers") or {}).get("num_written", 0)
    foreign, deleted = metrics.get("foreign_tasks", 0), metrics.get("labels_deleted_in_label_studio", 0)
    broken = len(metrics.get("store_lines_that_cannot_be_read", ()))
    lines = {
        f"better answers written by people: {written:,}, each a pair with the original; sft trains on them once "
        f"{BETTER_ANSWERS} there is in data.demonstrations": written,
        f"tasks that trueup did not publish, left alone: {foreign:,}": foreign,
        f"annotations that were deleted in Label Studio and do not count: {deleted:,}": deleted,
        f"lines of the store that cannot be read: {broken:,}": broken,
    }
    return [line for line, number in lines.items() if number]


def how_far(run_dir: Path) -> str:
    """Of people who are not done: how many completions are judged."""
    known = read_json(run_dir / "store" / "progress.json") or {}
    if not {"labelled", "wanted"} <= known.keys():
        return ""
    return "; ".join([f"waiting for labels {known['labelled']}/{known['wanted']}", *known.get("notes", [])])


STAGE = Stage(
    name="collect",
    config=Config,
    makes=Feedback,
    run=run,
    needs={"completions": "sample"},
    unless="preferences",
    on_base=False,
    how_far=how_far,
    says=says,
    since=since,
    help="People judge in Label Studio; freeze what they said.",
)
