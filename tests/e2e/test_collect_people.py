"""What people and administrators really do in Label Studio, and what collect says of it: the real server."""

from __future__ import annotations

import json
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.demo import simulate
from trueup.errors import ConfigError, FeedbackError
from trueup.feedback import server
from trueup.feedback.annotations import STAMP
from trueup.feedback.client import Client
from trueup.feedback.connection import Connection, connect
from trueup.feedback.screens import read_guidelines, screen, version
from trueup.feedback.store import Store
from trueup.feedback.tasks import CUT, to_task
from trueup.feedback.watch import Watch
from trueup.run.artifacts import Completions, Feedback, read_jsonl, write_json, write_jsonl
from trueup.run.run_file import LabelStudioConfig, load
from trueup.run.stage import Context, Waiting
from trueup.stages import STAGES, collect

NUM_PROMPTS = 4
SCREEN = screen("thumbs")


@dataclass
class Person:
    """Somebody with an account, at the API as a browser is."""

    connection: Connection

    def ask(self, method: str, path: str, **parts: Any) -> Any:
        headers = {"Authorization": f"Token {self.connection.token}"}
        answer = httpx.request(
            method, self.connection.url + path, headers=headers, trust_env=False, timeout=60, **parts
        )
        assert answer.status_code < 300, answer.text[:300]
        return answer.json() if answer.content else None

    def judge(self, task: int, verdict: str, **more: str) -> int:
        """Submit a thumb, and texts of other controls; returns the annotation's id."""
        result = [control("thumb", "choices", [verdict])] + [control(k, "textarea", [v]) for k, v in more.items()]
        return int(self.ask("POST", f"/api/tasks/{task}/annotations/", json={"result": result})["id"])

    def next_task(self, project: int) -> int | None:
        """What the label stream gives this person now."""
        headers = {"Authorization": f"Token {self.connection.token}"}
        address = f"{self.connection.url}/api/projects/{project}/next"
        answer = httpx.get(address, headers=headers, trust_env=False, timeout=60)
        return int(answer.json()["id"]) if answer.status_code == 200 else None


def control(name: str, kind: str, values: list[str]) -> dict[str, Any]:
    value = {"choices" if kind == "choices" else "text": values}
    return {"from_name": name, "to_name": "response", "type": kind, "value": value}


@dataclass
class Labelling:
    """A published run of eight completions, two a prompt."""

    context: Context
    admin: Person
    project: int
    tasks: dict[str, int]  # uid -> the task's id

    def go(self, **config: Any) -> dict[str, Any]:
        return collect.run(collect.Config(**config), self.context, completions=Completions(self.context.run_dir))

    def waiting(self, **config: Any) -> str:
        with pytest.raises(Waiting) as waiting:
            self.go(**config)
        return str(waiting.value)

    def judge_all(self, but: tuple[str, ...] = ()) -> dict[str, int]:
        """Thumbs up for the first answer to each prompt, down for the second; the annotations' ids by uid."""
        wanted = {uid: task for uid, task in self.tasks.items() if uid not in but}
        return {uid: self.admin.judge(task, "up" if uid.endswith("a") else "down") for uid, task in wanted.items()}


def context_of(folder: Path, labelstudio: Path, **settings: Any) -> Context:
    (folder / "run.yaml").write_text("name: people\n")
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
    out = folder / "collect.partial"
    out.mkdir(exist_ok=True)
    chosen = LabelStudioConfig(**{"url": connect(labelstudio).url, "data_dir": labelstudio} | settings)
    return Context(run=run.model_copy(update={"labelstudio": chosen}), run_dir=folder, out=out)


@pytest.fixture
def labelling(tmp_path: Path, labelstudio: Path) -> Labelling:
    rows = [
        {"uid": f"{n}{side}", "prompt_id": str(n), "completion": f"answer {side} to {n}", "finish": finish}
        | {"messages": [{"role": "user", "content": f"question {n}"}]}
        for n in range(NUM_PROMPTS)
        for side, finish in (("a", "eos"), ("b", "length"))
    ]
    write_jsonl(tmp_path / "completions.jsonl", rows)
    context = context_of(tmp_path, labelstudio)
    with pytest.raises(Waiting, match="waiting 0/8"):
        collect.run(collect.Config(), context, completions=Completions(tmp_path))
    admin = Person(connect(labelstudio))
    project, _ = Store(tmp_path / "store").project(admin.connection.url) or (0, "")
    tasks = {task["data"]["uid"]: task["id"] for task in Client(admin.connection).pull(project)}
    return Labelling(context, admin, project, tasks)


def test_a_skip_and_an_empty_submission_end_the_wait_with_what_to_do(labelling: Labelling) -> None:
    labelling.judge_all(but=("1a", "3b"))
    labelling.admin.ask(
        "POST", f"/api/tasks/{labelling.tasks['1a']}/annotations/", json={"result": [], "was_cancelled": True}
    )
    assert "only 1 more will come, and 2 are missing" in labelling.waiting()
    labelling.admin.ask("POST", f"/api/tasks/{labelling.tasks['3b']}/annotations/", json={"result": []})
    patient = labelling.context.run.labelstudio.model_copy(update={"wait": True})
    labelling.context = replace(
        labelling.context, run=labelling.context.run.model_copy(update={"labelstudio": patient})
    )
    said = labelling.waiting()  # at once, though it was told to wait
    assert "waiting 6/8" in said
    assert f"1 not counted: skipped (task {labelling.tasks['1a']})" in said
    assert f"1 not counted: submitted without a thumb (task {labelling.tasks['3b']})" in said
    assert "nothing more will come by itself, and 2 are missing" in said
    assert "collect.min_labelled_fraction: 0.75" in said
    metrics = labelling.go(min_labelled_fraction=0.75)
    assert metrics["unusable_annotations"] == {"skipped": 1, "submitted without a thumb": 1}
    assert metrics["counts"]["prompts_with_one_judged_answer"] == 2


def test_a_task_of_somebody_else_is_left_alone_and_named(labelling: Labelling) -> None:
    foreign = [{"data": {"response": "theirs", "messages": [], "cut": ""}}]
    labelling.admin.ask("POST", f"/api/projects/{labelling.project}/import", json=foreign)
    assert "1 not published by trueup and left alone (task " in labelling.waiting()
    labelling.judge_all()
    metrics = labelling.go()
    assert metrics["foreign_tasks"] == 1
    assert "tasks that trueup did not publish, left alone: 1" in collect.says(metrics, labelling.context.run)
    assert len(list(read_jsonl(labelling.context.out / "pairs.jsonl"))) == NUM_PROMPTS
    assert len(Client(labelling.admin.connection).pull(labelling.project)) == 9


def test_two_verdicts_a_completion_are_asked_of_two_people(labelling: Labelling) -> None:
    labelling.judge_all()
    second = Person(simulate.sign_up(labelling.admin.connection, "second"))
    assert second.next_task(labelling.project) is None  # one verdict was enough so far
    said = labelling.waiting(annotations_per_completion=2)
    assert "waiting 0/8" in said and "8 have a verdict, but not yet from as many people" in said
    given = []
    while (task := second.next_task(labelling.project)) is not None:
        given.append(task)
        uid = next(uid for uid, number in labelling.tasks.items() if number == task)
        second.judge(task, "up" if uid in ("0a", "0b", "1a", "2a", "3b") else "down")
    assert sorted(given) == sorted(labelling.tasks.values())
    metrics = labelling.go(annotations_per_completion=2)
    assert (metrics["num_annotators"], metrics["num_compared"]) == (2, 8)
    margins = {row["prompt_id"]: row["margin"] for row in Feedback(labelling.context.out).pairs("train")}
    margins |= {row["prompt_id"]: row["margin"] for row in Feedback(labelling.context.out).pairs("held_out")}
    assert margins == {"0": 0.5, "1": 1.0, "2": 1.0}  # on 3 they contradict each other


def test_verdicts_changed_after_the_snapshot_are_noticed(labelling: Labelling) -> None:
    made = labelling.judge_all()
    labelling.go()
    config, completions = collect.Config(), Completions(labelling.context.run_dir)
    frozen = Feedback(labelling.context.out)
    write_json(frozen.path / "record.json", {"metrics": {}})
    assert collect.since(config, labelling.context, frozen, completions=completions) == ""
    for uid in ("0a", "0b"):
        thumb = [control("thumb", "choices", ["down" if uid == "0a" else "up"])]
        labelling.admin.ask("PATCH", f"/api/annotations/{made[uid]}/", json={"result": thumb})
    labelling.admin.ask("DELETE", f"/api/annotations/{made['1a']}/")
    labelling.admin.judge(labelling.tasks["1a"], "down")
    said = collect.since(config, labelling.context, frozen, completions=completions)
    assert said == "Label Studio holds newer verdicts (1 new, 2 changed, 1 deleted); to take them: --refresh"
    labelling.go()
    chosen = {row["prompt_id"]: row["chosen_uid"] for split in ("train", "held_out") for row in frozen.pairs(split)}
    assert chosen == {"0": "0b", "2": "2a", "3": "3a"}


@pytest.mark.parametrize("respell", [lambda url: f"{url}/", lambda url: url.replace("127.0.0.1", "LocalHost")])
def test_another_spelling_of_the_address_finds_the_project(
    labelling: Labelling, respell: Any, labelstudio: Path
) -> None:
    labelling.judge_all()
    before = len(labelling.admin.ask("GET", "/api/projects/?page_size=100")["results"])
    folder = labelling.context.run_dir
    metrics = Labelling(
        context_of(folder, labelling.context.run.labelstudio.data_dir, url=respell(labelling.admin.connection.url)),
        labelling.admin,
        0,
        {},
    ).go()
    assert (metrics["num_published"], metrics["counts"]["votes"]) == (0, 8)
    assert len(labelling.admin.ask("GET", "/api/projects/?page_size=100")["results"]) == before


def test_better_answers_are_counted_and_kept_as_demonstrations(labelling: Labelling) -> None:
    labelling.judge_all(but=("0b", "1b"))
    labelling.admin.judge(labelling.tasks["0b"], "down", edited="A better answer.")
    labelling.admin.judge(labelling.tasks["1b"], "down", edited="answer b to 1")  # as it stood in the box
    metrics = labelling.go()
    assert any(
        "better answers written by people: 1, 1 of them pairs" in line
        for line in collect.says(metrics, labelling.context.run)
    )
    told = metrics["better_answers"]
    assert (told["num_written"], told["num_pairs"], told["file"]) == (1, 1, "better_answers.jsonl")
    pairs = {row["chosen"]: row for row in read_jsonl(labelling.context.out / "pairs.jsonl")}
    assert (pairs["A better answer."]["rejected"], pairs["A better answer."]["kind"]) == ("answer b to 0", "edit")
    assert metrics["became"] == {"thumb": {"pairs and rows": 8}, "edit": {"pairs and demonstrations": 1}}
    assert [row["messages"] for row in read_jsonl(labelling.context.out / told["file"])] == [
        [{"role": "user", "content": "question 0"}, {"role": "assistant", "content": "A better answer."}]
    ]


def test_guidelines_that_change_are_shown_and_a_screen_that_others_changed_is_left_alone(labelling: Labelling) -> None:
    def shown() -> str:
        return str(labelling.admin.ask("GET", f"/api/projects/{labelling.project}/")["label_config"])

    assert f'name="{STAMP}"' not in shown()
    labelling.judge_all(but=("0a",))
    labelling.waiting(guidelines="Be fair.")
    assert version("Be fair.") in shown()
    labelling.waiting(guidelines="Be kind.")
    assert version("Be kind.") in shown() and version("Be fair.") not in shown()
    theirs = shown().replace('value="Wrong"', 'value="Untrue"')
    labelling.admin.ask("PATCH", f"/api/projects/{labelling.project}/", json={"label_config": theirs})
    assert "the screen was changed in Label Studio and is left alone" in labelling.waiting(guidelines="Be brief.")
    assert shown() == theirs


def test_a_project_of_an_earlier_version_shows_no_guidelines_and_collect_says_so(labelling: Labelling) -> None:
    path = labelling.context.run_dir / "store" / "projects.json"
    known = json.loads(path.read_text())
    write_json(path, {name: {"id": one["id"], "key": one["key"]} for name, one in known.items()})
    assert "an earlier version made this project" in labelling.waiting(guidelines="Be fair.")
    assert "an earlier version" not in labelling.waiting()


def test_guidelines_are_a_text_or_a_file_beside_the_run_file(labelling: Labelling) -> None:
    folder = labelling.context.run_file_dir
    (folder / "fair.md").write_text("Be fair.\n")
    assert read_guidelines("fair.md", folder) == "Be fair."
    assert read_guidelines("See fair.md and go on.", folder) == "See fair.md and go on."
    (folder / "empty.md").write_text("\n")
    (folder / "latin.txt").write_bytes(b"sch\xf6n")
    for name, said in (("missing.md", "no such file"), ("empty.md", "an empty"), ("latin.txt", "cannot be read")):
        with pytest.raises(ConfigError, match=said):
            labelling.go(guidelines=name)


@pytest.mark.parametrize("interface", ["pairwise", "edit"])
def test_kto_cannot_learn_from_comparisons_and_edits(labelling: Labelling, interface: str) -> None:
    run = labelling.context.run.model_copy(update={"method": "kto"})
    labelling.context = replace(labelling.context, run=run)
    with pytest.raises(ConfigError, match=f"{interface}, and method kto, which learns from single judgements"):
        labelling.go(interface=interface)


def test_comparisons_that_prefer_nothing_are_not_frozen(labelling: Labelling) -> None:
    labelling.waiting(interface="pairwise")
    project, _ = Store(labelling.context.run_dir / "store", "pairwise").project(labelling.admin.connection.url) or (
        0,
        "",
    )
    for task in Client(labelling.admin.connection).pull(project):
        result = [control("preference", "choices", ["tie"])]
        labelling.admin.ask("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result})
    with pytest.raises(
        FeedbackError, match=r"4 judgements, and none prefers an answer to another \(4 comparisons: ties 4\)"
    ):
        labelling.go(interface="pairwise")


def test_cut_answers_say_so_on_their_screen(labelling: Labelling) -> None:
    tasks = Client(labelling.admin.connection).pull(labelling.project)
    assert {task["data"]["uid"]: task["data"]["cut"] for task in tasks} == {
        uid: CUT if uid.endswith("b") else "" for uid in labelling.tasks
    }
    screen = labelling.admin.ask("GET", f"/api/projects/{labelling.project}/")["label_config"]
    assert 'value="$cut"' in screen


def test_a_renamed_alias_and_deleted_labels_are_said(labelling: Labelling) -> None:
    made = labelling.judge_all(but=("2a", "2b"))
    labelling.waiting()
    labelling.admin.judge(labelling.tasks["2a"], "Good")
    labelling.admin.ask("DELETE", f"/api/tasks/{labelling.tasks['0a']}/")
    labelling.admin.ask("DELETE", f"/api/annotations/{made['0b']}/")
    said = labelling.waiting()
    assert "waiting 4/8" in said
    assert "thumb is ['Good'], expected up or down (was an alias changed?)" in said
    assert "2 annotations pulled earlier were deleted in Label Studio and do not count" in said


def test_a_comment_that_label_studio_cannot_show_hides_one_task_only(labelling: Labelling) -> None:
    labelling.judge_all(but=("1a",))
    labelling.waiting()
    half = json.dumps({"result": [control("thumb", "choices", ["up"]), control("reason", "textarea", ["half \ud83d"])]})
    headers = {"Authorization": f"Token {labelling.admin.connection.token}", "Content-Type": "application/json"}
    address = f"{labelling.admin.connection.url}/api/tasks/{labelling.tasks['1a']}/annotations/"
    httpx.post(address, content=half, headers=headers, trust_env=False, timeout=60)
    listing = f"{labelling.admin.connection.url}/api/tasks?project={labelling.project}&fields=all"
    assert httpx.get(listing, headers=headers, trust_env=False, timeout=60).status_code == 500
    said = labelling.waiting()
    assert "waiting 7/8" in said
    assert f"(status 500): broken characters in a comment? (task {labelling.tasks['1a']})" in said
    assert labelling.go(min_labelled_fraction=0.8)["counts"]["votes"] == 7


def test_only_thumbs_up_is_what_status_says_as_well(labelling: Labelling) -> None:
    for task in labelling.tasks.values():
        labelling.admin.judge(task, "up")
    with pytest.raises(FeedbackError, match="only thumbs up, 8 of them"):
        labelling.go()
    noted = json.loads((labelling.context.run_dir / "store" / "progress.json").read_text())
    assert noted["notes"] == ["only thumbs up, 8 of them; both kinds: alignment learns from the difference"]


def test_no_vote_of_this_round_is_said(labelling: Labelling) -> None:
    with pytest.raises(FeedbackError, match="no judgement yet"):
        labelling.go(min_labelled_fraction=0)


def test_what_two_processes_publish_at_once_stays_once(labelling: Labelling) -> None:
    admin = labelling.admin.connection
    project = Client(admin).create_project("trueup twice", "<View><Text name='t' value='$response'/></View>")
    rows = [{"uid": f"u{i}", "messages": [], "completion": "a"} for i in range(300)]
    tasks = [to_task(row) for row in rows]
    both = [threading.Thread(target=Client(admin).publish, args=(project, tasks)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    Client(admin).publish(project, tasks)
    assert len(Client(admin).pull(project)) == 300


def test_of_doubled_tasks_the_judged_one_stays(labelling: Labelling) -> None:
    client = Client(labelling.admin.connection)
    rows = list(read_jsonl(labelling.context.run_dir / "completions.jsonl"))
    again = [to_task(row) for row in rows]  # as a killed import that the server finished afterwards
    labelling.admin.ask("POST", f"/api/projects/{labelling.project}/import", json=again)
    doubled = [task["id"] for task in client.pull(labelling.project) if task["id"] not in labelling.tasks.values()]
    assert len(doubled) == 8
    labelling.admin.judge(doubled[0], "up")
    assert "waiting 1/8" in labelling.waiting()
    left = {task["id"] for task in client.pull(labelling.project)}
    assert len(left) == 8
    assert doubled[0] in left


def test_a_project_whose_creation_was_not_answered_is_found_again(labelling: Labelling, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    write_jsonl(folder / "completions.jsonl", read_jsonl(labelling.context.run_dir / "completions.jsonl"))
    context = context_of(folder, labelling.context.run.labelstudio.data_dir)
    key = Store(folder / "store").begin_project(labelling.admin.connection.url)
    lost = Client(labelling.admin.connection).create_project("trueup lost", SCREEN, key=key)
    Labelling(context, labelling.admin, 0, {}).waiting()
    assert Store(folder / "store").project(labelling.admin.connection.url) == (lost, key)


def test_a_watch_sees_votes_behind_a_task_of_the_future(labelling: Labelling, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(labelling.admin.connection)
    watch = Watch(client, labelling.project)
    monkeypatch.setattr("trueup.feedback.watch.WHOLE_EVERY", 3)
    pages = client.pages

    def ahead(project: int, since: str | None = None) -> Iterator[list[dict[str, Any]]]:
        for page in pages(project, since):
            yield [task | {"updated_at": "2999-01-01T00:00:00Z"} for task in page]

    monkeypatch.setattr(client, "pages", ahead)
    watch.look()
    labelling.judge_all()
    looks = [sum(bool(task.judgements) for task in watch.look()) for _ in range(3)]
    assert looks[-1] == 8


def test_a_folder_open_to_others_is_closed_at_the_start(labelstudio: Path) -> None:
    database = labelstudio / "label_studio.sqlite3"
    labelstudio.chmod(0o755)
    database.chmod(0o644)
    server.start(labelstudio, 1024)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (labelstudio, database)]
    assert modes == [0o700, 0o600]


@pytest.fixture
def personal(labelstudio: Path) -> Iterator[str]:
    admin = Person(connect(labelstudio))
    admin.ask("POST", "/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
    yield admin.ask("POST", "/api/token/", json={})["token"]


def test_a_personal_access_token_works(personal: str, labelling: Labelling) -> None:
    client = Client(Connection(labelling.admin.connection.url, personal))
    assert len(client.pull(labelling.project)) == 8


def test_the_command_says_that_newer_verdicts_are_there_and_refresh_takes_them(labelling: Labelling) -> None:
    folder = labelling.context.run_dir
    sampled = folder / "runs" / "people" / "round-1" / "sample"
    sampled.mkdir(parents=True)
    write_jsonl(sampled / "completions.jsonl", read_jsonl(folder / "completions.jsonl"))
    write_json(sampled / "record.json", {"stage": "sample", "fingerprint": Completions(sampled).fingerprint()})

    def typed(*more: str) -> tuple[int, str]:
        settings = labelling.context.run.labelstudio
        chosen = ["--set", f"labelstudio.url={settings.url}", "--set", f"labelstudio.data_dir={settings.data_dir}"]
        result = CliRunner().invoke(main, ["collect", str(folder / "run.yaml"), *chosen, *more])
        return result.exit_code, result.output

    shutil.copytree(folder / "store", folder / "runs" / "people" / "store")
    assert typed()[0] == 3
    made = labelling.judge_all()
    assert typed()[0] == 0
    assert "newer verdicts" not in typed()[1]
    for uid, up in (("0a", "down"), ("0b", "up")):
        thumb = [control("thumb", "choices", [up])]
        labelling.admin.ask("PATCH", f"/api/annotations/{made[uid]}/", json={"result": thumb})
    code, said = typed()
    assert (code, "complete already" in said) == (0, True)
    assert "newer verdicts (2 changed); to take them: --refresh" in said
    assert typed("--refresh", "--watch")[0] == 0
    pairs = read_jsonl(folder / "runs" / "people" / "round-1" / "collect" / "pairs.jsonl")
    assert {row["prompt_id"]: row["chosen_uid"] for row in pairs}["0"] == "0b"
    assert "newer verdicts" not in typed()[1]
    before = len(list((folder / "runs" / "people" / "round-1").iterdir()))
    code, said = typed("--refresh")
    assert (code, "collect: nothing is newer than this" in said) == (0, True)
    assert len(list((folder / "runs" / "people" / "round-1").iterdir())) == before  # nothing was built again
    assert "collect.adjudicate" not in typed()[1]
