"""collect: (Completions) -> Feedback. Publish to Label Studio, wait for people, freeze what they said."""

from trueup.artifacts import Completions, Feedback, write_json, write_jsonl
from trueup.stage import Context, Metrics, Section, Stage, Waiting


class Config(Section):
    """How much is labelled before the snapshot is frozen."""

    annotations_per_completion: int = 1
    min_labelled_fraction: float = 1.0  # of the completions
    held_out_fraction: float = 0.15  # of the prompts


def run(config: Config, context: Context, completions: Completions) -> Metrics:
    """Publish what is missing, pull every thumb into the store, freeze pairs and rows. Raises Waiting until then."""
    import math
    import time
    from collections import Counter
    from pathlib import Path

    from trueup.feedback import interfaces, preferences, server, tasks
    from trueup.feedback.annotations import parse
    from trueup.feedback.client import Client
    from trueup.feedback.store import Store

    settings = context.run.labelstudio
    rows = completions.rows()
    if settings.url is None:
        server.start(settings.data_dir, settings.port, print)
    connection = server.connect(settings.data_dir, settings.url)
    client, store = Client(connection), Store(context.run_dir / "store")
    project = store.project(connection.url)
    if project is None:
        screen = (Path(interfaces.__path__[0]) / "thumbs.xml").read_text(encoding="utf-8")
        project = client.create_project(f"trueup {context.run.name}", screen)
        store.remember_project(connection.url, project)
    num_published = client.publish(project, [tasks.to_task(row) for row in rows])
    wanted = math.ceil(config.min_labelled_fraction * len(rows))
    while True:
        parsed = [parse(task) for task in client.pull(project)]
        found = [annotation for good, _ in parsed for annotation in good]
        store.append(found)
        per_completion = Counter(annotation.uid for annotation in found)
        labelled = sum(per_completion[row["uid"]] >= config.annotations_per_completion for row in rows)
        write_json(store.folder / "progress.json", {"labelled": labelled, "wanted": wanted})
        if labelled >= wanted:
            break
        if not settings.wait:
            raise Waiting(labelled, wanted, f"{connection.url}/projects/{project}/data?labeling=1")
        time.sleep(settings.poll_s)
    current = store.current({annotation.annotation_id for annotation in found})
    votes = [preferences.Vote(row["uid"], row["annotator"], row["up"]) for row in current]
    dataset = preferences.build(votes, rows, held_out=config.held_out_fraction, seed=context.run.seed)
    write_jsonl(context.out / "annotations.jsonl", current)
    write_jsonl(context.out / "pairs.jsonl", dataset.pairs)
    write_jsonl(context.out / "rows.jsonl", dataset.rows)
    unusable = Counter(item.why for _, bad in parsed for item in bad)
    return {
        "num_published": num_published,
        "num_texts_cleaned": tasks.num_cleaned(rows),
        "num_annotators": len({row["annotator"] for row in current}),
        "counts": dataset.counts,
        "unusable_annotations": dict(unusable),
    }


STAGE = Stage(name="collect", config=Config, makes=Feedback, run=run, needs={"completions": "sample"})
