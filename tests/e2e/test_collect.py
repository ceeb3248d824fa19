"""collect against the real server: published, waited for, voted over HTTP, frozen; labels outlive projects."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from trueup.demo import hidden_preference, simulate
from trueup.errors import FeedbackError, ServerError
from trueup.feedback.client import Client
from trueup.feedback.connection import connect
from trueup.feedback.store import Store
from trueup.feedback.watch import Watch
from trueup.run.artifacts import Completions, Feedback, write_json, write_jsonl
from trueup.run.run_file import LabelStudioConfig, load
from trueup.run.stage import Context, Waiting
from trueup.stages import STAGES, collect

ANSWERS = (
    "Glad to help! Bring the tent to the desk. Which day suits you?",
    "We have three tents.",
    "The best tent ever, absolutely amazing, you will love this miracle!!",
    "Tents are on the first floor. Ask at the desk for the lightest one.",
)


@pytest.fixture
def context(tmp_path: Path, labelstudio: Path) -> Context:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"name: {tmp_path.name[:20]}\n")
    run = load(run_file, {stage.name: stage.config for stage in STAGES})
    connection = connect(labelstudio)
    write_jsonl(
        tmp_path / "completions.jsonl",
        [
            {"uid": f"{n}-{i}", "prompt_id": str(n), "completion": f"{text[:-1]} ({n}){text[-1]}"}
            | {"messages": [{"role": "user", "content": f"Which tent is number {n}?"}]}
            for n in range(10)
            for i, text in enumerate(ANSWERS)
        ],
    )
    out = tmp_path / "collect.partial"
    out.mkdir()
    settings = LabelStudioConfig(url=connection.url, data_dir=labelstudio)
    return Context(run=run.model_copy(update={"labelstudio": settings}), run_dir=tmp_path, out=out)


def go(context: Context) -> dict[str, object]:
    return collect.run(collect.Config(), context, completions=Completions(context.run_dir))


def test_thumbs_of_three_users_become_a_frozen_snapshot(context: Context) -> None:
    with pytest.raises(Waiting, match="waiting 0/40"):
        go(context)
    admin = connect(context.run.labelstudio.data_dir)
    project, _ = Store(context.run_dir / "store").project(admin.url) or (0, "")
    tasks = Client(admin).pull(project)
    assert all(set(task["data"]) == {"uid", "messages", "response", "cut", "place"} for task in tasks)
    annotators = simulate.hire(admin, seed=0)
    assert simulate.vote(annotators, tasks[:20]) == simulate.num_votes(tasks[:20])
    with pytest.raises(Waiting, match="waiting 20/40"):
        go(context)
    tasks = Client(admin).pull(project)
    simulate.vote(annotators, tasks)
    metrics = go(context)
    assert metrics["num_published"] == 0
    assert metrics["num_annotators"] == 3
    assert metrics["num_compared"] == 2 * 4 * 3  # every fifth of 10 prompts, 4 completions, 3 pairs of annotators
    feedback = Feedback(context.out)
    rows = feedback.rows("train") + feedback.rows("held_out")
    liked = {row["uid"] for row in rows if row["label"]}
    assert sum(uid.endswith("-0") for uid in liked) > sum(uid.endswith("-2") for uid in liked)
    for pair in feedback.pairs("train"):
        assert {pair["chosen_uid"].split("-")[0], pair["rejected_uid"].split("-")[0]} == {pair["prompt_id"]}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "interface", ["pairwise", pytest.param("rating", marks=SLOW), pytest.param("edit", marks=SLOW)]
)
def test_simulated_annotators_judge_on_every_screen(context: Context, interface: str) -> None:
    config = collect.Config(interface=interface)  # type: ignore[arg-type]
    with pytest.raises(Waiting, match="waiting 0/40"):
        collect.run(config, context, completions=Completions(context.run_dir))
    admin = connect(context.run.labelstudio.data_dir)
    project, _ = Store(context.run_dir / "store", interface).project(admin.url) or (0, "")
    tasks = Client(admin).pull(project)
    given = simulate.vote(simulate.hire(admin, 0, interface), tasks)
    assert given == simulate.num_votes(tasks)
    metrics = collect.run(config, context, completions=Completions(context.run_dir))
    assert {kind: sum(found.values()) for kind, found in metrics["became"].items()} == {
        {"pairwise": "comparison"}.get(interface, interface): given
    }
    pairs = Feedback(context.out).pairs("train")
    better = [hidden_preference.score(p["chosen"]) > hidden_preference.score(p["rejected"]) for p in pairs]
    assert sum(better) > 0.75 * len(better) > 0
    line = collect.says(metrics, context.run)[0]
    assert line.startswith(f"{given} judgements ({given} {'comparison' if interface == 'pairwise' else interface}s: ")


def test_labels_pulled_once_outlive_a_deleted_project(context: Context) -> None:
    with pytest.raises(Waiting):
        go(context)
    admin = connect(context.run.labelstudio.data_dir)
    store = Store(context.run_dir / "store")
    project, _ = store.project(admin.url) or (0, "")
    simulate.vote(simulate.hire(admin, seed=1), Client(admin).pull(project)[:8])
    with pytest.raises(Waiting, match="waiting 8/40"):
        go(context)
    headers = {"Authorization": f"Token {admin.token}"}
    httpx.delete(f"{admin.url}/api/projects/{project}/", headers=headers, trust_env=False, timeout=60)
    with pytest.raises(ServerError, match=r"remove projects\.json"):
        go(context)
    (context.run_dir / "store" / "projects.json").unlink()
    with pytest.raises(Waiting, match="waiting 8/40"):
        go(context)


def test_only_thumbs_up_are_not_frozen_and_a_changed_mind_goes_on(context: Context) -> None:
    with pytest.raises(Waiting):
        go(context)
    admin = connect(context.run.labelstudio.data_dir)
    project, _ = Store(context.run_dir / "store").project(admin.url) or (0, "")
    headers = {"Authorization": f"Token {admin.token}"}
    thumb = {"from_name": "thumb", "to_name": "response", "type": "choices"}
    with httpx.Client(base_url=admin.url, headers=headers, trust_env=False, timeout=60) as person:
        made = [
            person.post(
                f"/api/tasks/{task['id']}/annotations/", json={"result": [thumb | {"value": {"choices": ["up"]}}]}
            ).json()["id"]
            for task in Client(admin).pull(project)[:2]
        ]
        few = collect.Config(min_labelled_fraction=2 / 40)
        with pytest.raises(FeedbackError, match="only thumbs up, 2 of them"):
            collect.run(few, context, completions=Completions(context.run_dir))
        assert not (context.out / "pairs.jsonl").exists()
        person.patch(f"/api/annotations/{made[0]}/", json={"result": [thumb | {"value": {"choices": ["down"]}}]})
    assert collect.run(few, context, completions=Completions(context.run_dir))["share_up"] == 0.5


def test_a_watch_pulls_what_changed_and_shows_what_was_deleted(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Waiting):
        go(context)
    admin = connect(context.run.labelstudio.data_dir)
    project, _ = Store(context.run_dir / "store").project(admin.url) or (0, "")
    connected = Client(admin)
    monkeypatch.setattr("trueup.feedback.watch.OVERLAP", timedelta(0))
    watch = Watch(connected, project)
    tasks = watch.look()
    assert len(tasks) == 40
    newest = max(str(task["updated_at"]) for task in connected.pull(project))
    headers = {"Authorization": f"Token {admin.token}"}
    thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": ["up"]}}
    with httpx.Client(base_url=admin.url, headers=headers, trust_env=False, timeout=60) as person:
        person.post(f"/api/tasks/{tasks[3].task}/annotations/", json={"result": [thumb]})
        assert {task["id"] for task in connected.pull(project, newest)} == {tasks[3].task}
        assert {t.task: len(t.judgements) for t in watch.look() if t.judgements} == {tasks[3].task: 1}
        person.delete(f"/api/tasks/{tasks[5].task}/")
    assert len(watch.look()) == 40
    assert {task.task for task in watch.look(whole=True)} == {task.task for task in tasks} - {tasks[5].task}


def test_no_thumbs_and_a_dead_server_are_said(context: Context, tmp_path: Path) -> None:
    with pytest.raises(FeedbackError, match="no judgement yet"):
        collect.run(collect.Config(min_labelled_fraction=0), context, completions=Completions(context.run_dir))
    write_json(tmp_path / "credentials.json", {"url": "http://127.0.0.1:9", "token": "t"})
    settings = LabelStudioConfig(url="http://127.0.0.1:9", data_dir=tmp_path)
    with pytest.raises(ServerError, match="no answer"):
        go(replace(context, run=context.run.model_copy(update={"labelstudio": settings})))


def test_the_hidden_preference_reads_four_components() -> None:
    helpful, plain, hype, acting = map(hidden_preference.components, ANSWERS)
    assert (helpful.warm, helpful.asks, helpful.acts, helpful.hype) == (True, True, True, False)
    assert (plain.warm, plain.asks, plain.acts, plain.hype) == (False, False, False, False)
    assert (hype.hype, acting.acts) == (True, True)
