"""collect: (Completions | preferences) -> Feedback. What people said in Label Studio, or before, frozen."""

from __future__ import annotations

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
    from trueup.feedback.preferences import Dataset
    from trueup.feedback.votes import Vote

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
    """Publish what is missing, pull every thumb into the store, freeze pairs and rows. Raises Waiting until then.

    Without `completions` the preferences of `data.preferences` are frozen: there is nothing to ask anybody.
    """
    import math

    from trueup.feedback import preferences, quality, tasks
    from trueup.feedback.project import open_project
    from trueup.feedback.votes import Vote

    if completions is None:
        return _ready_made(config, context)
    rows = completions.rows()
    asked = [row["uid"] for row in rows]
    project = open_project(context.run.labelstudio, context.run_dir / "store")
    known = project.make(f"trueup {context.run.name}", config.annotations_per_completion)
    num_published = project.client.publish(known[0], [tasks.to_task(row) for row in rows])
    wanted = math.ceil(config.min_labelled_fraction * len(rows))
    standing = project.labels(known, asked, each=config.annotations_per_completion, wanted=wanted)
    every = [Vote(row["uid"], row["annotator"], row["up"]) for row in standing.rows]
    dataset = preferences.build(every, rows, held_out=config.held_out_fraction, seed=context.run.seed)
    votes = [vote for vote in every if vote.uid in set(asked)]  # of this round
    if fault := _one_kind(votes, "change or add some in Label Studio, then run the same command again"):
        project.note_progress(standing, [f"{fault.found}; both kinds are needed"])
        raise fault
    _freeze(context, standing.rows, dataset)
    return {
        "num_published": num_published,
        "num_texts_cleaned": tasks.num_cleaned(rows),
        "num_cut_at_length_limit": sum(row.get("finish") == "length" for row in rows),
        "num_annotators": len({vote.annotator for vote in votes}),
        "num_prompts": dataset.num_prompts,
        "share_up": sum(vote.up for vote in votes) / len(votes),
        "counts": dataset.counts,
        **standing.counts(),
        "better_answers": _better_answers(context, standing.rows, rows),
        **quality.pairwise_agreement(votes),
    }


def _ready_made(config: Config, context: Context) -> Metrics:
    """Pairs and thumbs the user already has become the same snapshot as votes from Label Studio."""
    from trueup.data import read_preferences
    from trueup.data.report import ReadReport, tell
    from trueup.feedback import preferences
    from trueup.feedback.votes import votes_of

    judged, unusable = read_preferences(context.run.data, context.run.seed, report := ReadReport())
    read = tell(report)
    votes, rows = votes_of(judged)
    if fault := _one_kind(
        votes, "look at the label column: trueup data check RUN.yaml; or add thumbs of the other kind"
    ):
        raise fault
    dataset = preferences.build(votes, rows, held_out=config.held_out_fraction, seed=context.run.seed)
    _freeze(context, [{"uid": v.uid, "annotator": v.annotator, "up": v.up} for v in votes], dataset)
    return {
        "num_judged": len(judged),
        "num_prompts": dataset.num_prompts,
        "counts": dataset.counts,
        "unusable_rows": unusable,
        "data": read,
    }


def _one_kind(votes: list[Vote], next_step: str) -> FeedbackError | None:
    """The error of thumbs that all point one way."""
    if len({vote.up for vote in votes}) > 1:
        return None
    return FeedbackError(
        "collect",
        found=f"only thumbs {'up' if votes[0].up else 'down'}, {len(votes)} of them",
        expected="both kinds: alignment learns from the difference",
        next_step=next_step,
    )


def _freeze(context: Context, annotations: list[dict[str, Any]], dataset: Dataset) -> None:
    write_jsonl(context.out / "annotations.jsonl", annotations)
    write_jsonl(context.out / "pairs.jsonl", dataset.pairs)
    write_jsonl(context.out / "rows.jsonl", dataset.rows)


def _better_answers(context: Context, annotations: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the answers that people wrote themselves as demonstrations; no stage uses them by itself."""
    asked = {row["uid"]: row["messages"] for row in rows}
    written = [row for row in annotations if row.get("edited") and row["uid"] in asked]
    if not written:
        return {"num_written": 0}
    made = (
        {"messages": [*asked[row["uid"]], {"role": "assistant", "content": row["edited"]}], "uid": row["uid"]}
        for row in written
    )
    write_jsonl(context.out / BETTER_ANSWERS, made)
    next_step = "no stage trains on them by itself: add the file to data.demonstrations"
    return {"num_written": len(written), "num_used": 0, "file": BETTER_ANSWERS, "next": next_step}


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
    counts = metrics["counts"]
    judged = f"{counts['votes']:,} judgements"
    if "share_up" in metrics:
        judged += f", {metrics['share_up']:.0%} of them thumbs up"
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
        f"better answers written by people: {written:,}, in {BETTER_ANSWERS} there; no stage trains on them until the "
        "file is in data.demonstrations": written,
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
    alone=True,
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
