"""collect: (Completions | preferences) -> Feedback. What people said in Label Studio, or before, frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt

from trueup.errors import FeedbackError
from trueup.run.artifacts import Completions, Feedback, write_json, write_jsonl
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage, Waiting

if TYPE_CHECKING:
    from trueup.feedback.client import Client
    from trueup.feedback.preferences import Dataset
    from trueup.feedback.store import Store


class Config(Section):
    """How much is labelled before the snapshot is frozen."""

    annotations_per_completion: PositiveInt = 1
    min_labelled_fraction: float = Field(default=1.0, ge=0, le=1)  # of the completions
    held_out_fraction: float = Field(default=0.15, ge=0, lt=1)  # of the prompts


def run(config: Config, context: Context, completions: Completions | None = None) -> Metrics:
    """Publish what is missing, pull every thumb into the store, freeze pairs and rows. Raises Waiting until then.

    Without `completions` the preferences of `data.preferences` are frozen: there is nothing to ask anybody.
    """
    import math
    import time
    from collections import Counter

    from trueup.feedback import preferences, quality, tasks
    from trueup.feedback.annotations import parse
    from trueup.feedback.client import Watch
    from trueup.feedback.store import Store
    from trueup.feedback.votes import Vote
    from trueup.progress import bars

    if completions is None:
        return _ready_made(config, context)
    settings = context.run.labelstudio
    rows, store = completions.rows(), Store(context.run_dir / "store")
    client, project, key = _project(context, store)
    num_published = client.publish(project, [tasks.to_task(row) for row in rows])
    wanted = math.ceil(config.min_labelled_fraction * len(rows))
    address = f"{client.url}/projects/{project}/data?labeling=1"
    if settings.url is None:
        address += f" (login: trueup labelstudio status --data-dir {settings.data_dir})"
    watch, whole = Watch(client, project), True
    with bars("collect") as bar:
        task = bar.add_task("thumbs", total=wanted)
        while True:
            parsed = [parse(item) for item in watch.look(whole=whole)]
            found = [annotation for good, _ in parsed for annotation in good]
            store.append(found, key)
            current = store.current({annotation.annotation_id for annotation in found}, key)
            per_completion = Counter(row["uid"] for row in current)
            labelled = sum(per_completion[row["uid"]] >= config.annotations_per_completion for row in rows)
            write_json(store.folder / "progress.json", {"labelled": labelled, "wanted": wanted})
            bar.update(task, completed=min(labelled, wanted))
            done = labelled >= wanted
            if done and whole:
                break
            if not done and not settings.wait:
                raise Waiting(labelled, wanted, address)
            if not done:
                time.sleep(settings.poll_s)
            whole = done  # before freezing: a deleted task shows only in a whole pull
    every = [Vote(row["uid"], row["annotator"], row["up"]) for row in current]
    asked = {row["uid"] for row in rows}
    votes = [vote for vote in every if vote.uid in asked]  # of this round
    if len({vote.up for vote in votes}) == 1:
        raise FeedbackError(
            "collect",
            found=f"only thumbs {'up' if votes[0].up else 'down'}, {len(votes)} of them",
            expected="both kinds: alignment learns from the difference",
            next_step="change or add some in Label Studio, then type the same command again",
        )
    dataset = preferences.build(every, rows, held_out=config.held_out_fraction, seed=context.run.seed)
    _freeze(context, current, dataset)
    return {
        "num_published": num_published,
        "num_texts_cleaned": tasks.num_cleaned(rows),
        "num_annotators": len({vote.annotator for vote in votes}),
        "share_up": sum(vote.up for vote in votes) / len(votes),
        "counts": dataset.counts,
        "unusable_annotations": dict(Counter(item.why for _, bad in parsed for item in bad)),
        **quality.pairwise_agreement(votes),
    }


def _ready_made(config: Config, context: Context) -> Metrics:
    """Pairs and thumbs the user already has become the same snapshot as votes from Label Studio."""
    from trueup.data import read_preferences
    from trueup.feedback import preferences
    from trueup.feedback.votes import votes_of

    judged, unusable = read_preferences(context.run.data, context.run.seed)
    votes, rows = votes_of(judged)
    dataset = preferences.build(votes, rows, held_out=config.held_out_fraction, seed=context.run.seed)
    _freeze(context, [{"uid": v.uid, "annotator": v.annotator, "up": v.up} for v in votes], dataset)
    return {"num_judged": len(judged), "counts": dataset.counts, "unusable_rows": unusable}


def _freeze(context: Context, annotations: list[dict[str, Any]], dataset: Dataset) -> None:
    write_jsonl(context.out / "annotations.jsonl", annotations)
    write_jsonl(context.out / "pairs.jsonl", dataset.pairs)
    write_jsonl(context.out / "rows.jsonl", dataset.rows)


def _project(context: Context, store: Store) -> tuple[Client, int, str]:
    """A connected client and the run's project, made at the first call; starts our own server when none is named."""
    from importlib.resources import files

    from trueup.feedback import server
    from trueup.feedback.client import Client
    from trueup.progress import spinner

    settings = context.run.labelstudio
    if settings.url is None:
        with spinner("starting Label Studio") as say:
            server.start(settings.data_dir, settings.port, say)
    client = Client(server.connect(settings.data_dir, settings.url))
    where = settings.url or "our own server"  # whose port may change
    known = store.project(where)
    if known is None:
        screen = files("trueup.feedback.interfaces").joinpath("thumbs.xml").read_text(encoding="utf-8")
        known = store.remember_project(where, client.create_project(f"trueup {context.run.name}", screen))
    return client, *known


STAGE = Stage(
    name="collect",
    config=Config,
    makes=Feedback,
    run=run,
    needs={"completions": "sample"},
    unless="preferences",
    help="People judge in Label Studio; freeze what they said.",
)
