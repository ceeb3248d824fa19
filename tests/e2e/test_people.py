"""Logins of several people on a real server of their own: made, told apart, removed, and waited for."""

from __future__ import annotations

import json
import re
import shutil
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from playwright.sync_api import expect, sync_playwright
from ports import free_port

from trueup.cli.main import main
from trueup.errors import ConfigError, ServerError
from trueup.feedback import people, reach, server
from trueup.feedback.client import Client
from trueup.feedback.connection import connect
from trueup.run.artifacts import Completions, Feedback, read_jsonl, write_json, write_jsonl
from trueup.run.run_file import LabelStudioConfig, load
from trueup.run.stage import Context, Waiting
from trueup.stages import STAGES, collect

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LOGGED_IN: dict[int, httpx.Client] = {}  # by the id of the account


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running server that listens to other machines, too."""
    folder = tmp_path_factory.mktemp("people")
    server.start(folder, free_port(), host=reach.EVERYWHERE)
    yield folder
    assert server.stop(folder)


def typed(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [*words])
    assert result.exit_code == code, result.output
    return result.output


def session(place: Path, person: people.Person) -> httpx.Client:
    """What a browser has after this person filled in the login form."""
    browser = httpx.Client(base_url=connect(place).url, trust_env=False, follow_redirects=True, timeout=60)
    page = browser.get("/user/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token
    form = {"email": person.email, "password": person.password, "csrfmiddlewaretoken": token.group(1)}
    browser.post("/user/login/", data=form, headers={"Referer": str(page.url)})
    return browser


def whoami(browser: httpx.Client) -> Any:
    answer = browser.get("/api/current-user/whoami")
    return answer.json() if answer.status_code == 200 else None


def test_three_people_of_one_name_are_told_apart_and_one_is_removed(place: Path) -> None:
    for _ in range(3):
        said = typed("people", "add", "Ana María", "--data-dir", str(place))
    made = [person for person in people.everybody(place) if person.name == "Ana María"]
    assert [person.email for person in made] == [f"ana.maria{n}@trueup.local" for n in ("", "-2", "-3")]
    assert len({person.id for person in made}) == len({person.password for person in made}) == 3
    assert f"http://{socket.gethostname()}:" in said and made[2].email in said and made[2].password in said
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for file in place.glob(f"{people.FILE}*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    assert not any(person.password in (place / "server.log").read_text() for person in made)
    several = typed("people", "remove", "Ana María", "--data-dir", str(place), code=2)
    assert "3 people of this name or id: ana.maria@trueup.local, ana.maria-2@" in several

    inside = [session(place, person) for person in made]
    assert [whoami(browser)["id"] for browser in inside] == [person.id for person in made]
    assert [whoami(browser)["first_name"] for browser in inside] == ["Ana María"] * 3
    typed("people", "remove", "ana.maria-2@trueup.local", "--data-dir", str(place))
    assert [whoami(browser) is not None for browser in inside] == [True, False, True]
    assert whoami(session(place, made[1])) is None
    assert "nobody" in typed("people", "remove", made[1].email, "--data-dir", str(place), code=2)
    printed = CliRunner().invoke(main, ["people", "list", "--json", "--data-dir", str(place)]).stdout
    listed = json.loads(printed)["people"]
    assert {one["id"]: one["removed"] for one in listed} == {p.id: p is made[1] for p in made}
    assert "password" not in printed


def test_what_cannot_be_a_name_or_a_server(place: Path, tmp_path: Path) -> None:
    for name in ("  ", "a\x1b[31m", "half \udcff", "x" * 101):
        assert "1 to 100 characters" in typed("people", "add", name, "--data-dir", str(place), code=2)
    assert "not running" in typed("people", "add", "Ana", "--data-dir", str(tmp_path), code=2)
    assert "no such folder" in typed("people", "remove", "Ana", "--data-dir", str(tmp_path / "none"), code=2)
    assert "nobody was added yet" in typed("people", "list", "--data-dir", str(tmp_path))
    (tmp_path / people.FILE).write_text("{")
    assert "no list of people" in typed("people", "list", "--data-dir", str(tmp_path), code=2)
    nobody = typed("people", "add", "你好", "--data-dir", str(place))
    assert "person@trueup.local" in nobody
    typed("people", "remove", "你好", "--data-dir", str(place))


def test_a_host_that_is_not_ours_and_one_that_changes_while_it_runs(place: Path, tmp_path: Path) -> None:
    for host in ("203.0.113.7", "no.such.host.invalid", "::"):
        with pytest.raises(ServerError, match="no IPv4 address of this machine"):
            server.start(tmp_path, free_port(), host=host)
    with pytest.raises(ServerError, match=r"listening on 0\.0\.0\.0"):
        server.start(place, 1024, host=reach.LOOPBACK)
    assert server.start(place, 1024) == connect(place)


def only(place: Path, *names: str) -> list[people.Person]:
    """Logins of these people, the first of whom lets records tell the name; nobody else has one.

    Who has one from an earlier test keeps it: hashing passwords is most of the work of such a test.
    """
    wanted = {name: name == names[0] for name in names}
    here = {person.name: person for person in people.everybody(place) if not person.removed}
    kept = {name: person for name, person in here.items() if wanted.get(name) == person.named}
    for person in people.everybody(place):
        if not person.removed and person not in kept.values():
            people.remove(place, person.email)
    return [kept.get(name) or people.add(place, name, named=named) for name, named in wanted.items()]


class Labelling:
    """A published run of eight completions, two to a prompt, each of which two people are asked about by default."""

    def __init__(self, folder: Path, place: Path, **config: Any) -> None:
        self.config = config or {"annotations_per_completion": 2}
        rows = [
            {"uid": f"{n}{side}", "prompt_id": str(n), "completion": f"answer {side} to {n}", "finish": "eos"}
            | {"messages": [{"role": "user", "content": f"question {n}"}]}
            for n in range(4)
            for side in "ab"
        ]
        write_jsonl(folder / "completions.jsonl", rows)
        (folder / "run.yaml").write_text("name: several\n")
        self.run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
        self.place, self.folder = place, folder
        (folder / "collect").mkdir()
        with pytest.raises(Waiting) as waiting:
            self.collect(wait=False)
        self.address = waiting.value.address.partition(" ")[0]
        self.project = int(self.address.partition("/projects/")[2].partition("/")[0])
        self.tasks = {t["data"]["uid"]: int(t["id"]) for t in Client(connect(place)).pull(self.project)}

    def collect(self, *, wait: bool, **config: Any) -> dict[str, Any]:
        settings = LabelStudioConfig(data_dir=self.place, wait=wait, poll_s=1.0)
        run = self.run.model_copy(update={"labelstudio": settings})
        # the run file is beside the run's folder: what it names, such as a file of gold, is looked for there
        context = Context(run=run, run_dir=self.folder, out=self.folder / "collect")
        chosen = collect.Config(**self.config | config)
        return collect.run(chosen, context, completions=Completions(self.folder))

    def newer(self) -> str:
        """What collect says of a complete snapshot."""
        settings = LabelStudioConfig(data_dir=self.place)
        context = Context(
            run=self.run.model_copy(update={"labelstudio": settings}), run_dir=self.folder, out=self.folder
        )
        frozen = Feedback(self.folder / "collect")
        write_json(frozen.path / "record.json", {"metrics": {}})
        return collect.since(collect.Config(**self.config), context, frozen, completions=Completions(self.folder))

    def waiting(self, *, wait: bool = False, **config: Any) -> str:
        with pytest.raises(Waiting) as waiting:
            self.collect(wait=wait, **config)
        return str(waiting.value)

    def browser(self, person: people.Person) -> httpx.Client:
        if person.id not in LOGGED_IN:
            LOGGED_IN[person.id] = session(self.place, person)
        return LOGGED_IN[person.id]

    def judge(self, person: people.Person, task: int, verdict: str) -> None:
        thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": [verdict]}}
        answer = self.browser(person).post(f"/api/tasks/{task}/annotations/", json={"result": [thumb]})
        assert answer.status_code == 201, answer.text[:300]

    def judge_again(self, person: people.Person, verdict: str) -> int:
        """Change this person's verdicts in the project; returns how many."""
        thumb = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": [verdict]}}
        made = [a for task in Client(connect(self.place)).pull(self.project) for a in task["annotations"]]
        for annotation in made:
            self.browser(person).patch(f"/api/annotations/{annotation['id']}/", json={"result": [thumb]})
        return len(made)

    def judge_what_is_served(
        self, person: people.Person, verdict: Callable[[dict[str, Any]], str] | None = None, most: int = 1000
    ) -> list[int]:
        """Thumbs up for the first answer to each prompt, down for the second; the tasks in the order given."""
        browser, given = self.browser(person), list[int]()
        verdict = verdict or (lambda data: "up" if data["uid"].endswith("a") else "down")
        while len(given) < most:
            if (found := browser.get(f"/api/projects/{self.project}/next")).status_code != 200:
                break
            given.append(int(found.json()["id"]))
            self.judge(person, given[-1], verdict(found.json()["data"]))
        return given


def judge_in_a_browser(labelling: Labelling, person: people.Person) -> str:
    """Log in at the address that colleagues are given, and judge the first task by its keys; the uid judged."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1366, "height": 768})
        page.goto(labelling.address)
        page.fill("input[name=email]", person.email)
        page.fill("input[name=password]", person.password)
        page.click("button[type=submit]")
        page.goto(labelling.address)
        first = page.locator(".rl-place").get_by_text("1 of 8", exact=True)
        expect(first).to_be_visible(timeout=60_000)
        page.keyboard.press("1")
        expect(page.locator(".rl-ask .ant-radio-wrapper-checked")).to_be_visible()
        page.keyboard.press("Control+Enter")
        expect(first).to_have_count(0, timeout=30_000)
        chromium.close()
    return "0a"


def test_two_people_are_served_everything_and_collect_ends_by_itself(place: Path, tmp_path: Path) -> None:
    ben, chris = only(place, "Ben", "Chris")
    labelling = Labelling(tmp_path, place)
    assert labelling.address.startswith(f"http://{socket.gethostname()}:")
    assert f"still to judge, at most: Ben ({ben.id}) 8, person {chris.id} 8" in labelling.waiting()
    with ThreadPoolExecutor(1) as pool:
        frozen = pool.submit(labelling.collect, wait=True)
        seen = {labelling.tasks[judge_in_a_browser(labelling, ben)]} if BROWSER else set()
        assert seen | set(labelling.judge_what_is_served(ben)) == set(labelling.tasks.values())
        said = labelling.waiting()
        assert "waiting 0/8" in said and f"still to judge, at most: person {chris.id} 8" in said
        assert not frozen.done()
        labelling.judge(chris, labelling.tasks["0a"], "down")
        labelling.judge(chris, labelling.tasks["0a"], "up")  # another mind: the second one counts
        assert sorted(labelling.judge_what_is_served(chris)) == sorted(labelling.tasks.values())[1:]
        metrics = frozen.result(timeout=60)
    assert metrics["num_annotators"] == 2 and metrics["counts"]["votes"] == 16
    assert metrics["names_of_annotators"] == {str(ben.id): "Ben"}
    rows = list(read_jsonl(tmp_path / "collect" / "annotations.jsonl"))
    assert all(row["up"] == row["uid"].endswith("a") for row in rows if row["uid"] != "0a")
    last = {row["annotator"]: row["up"] for row in rows if row["uid"] == "0a"}
    assert last == {str(ben.id): True, str(chris.id): True}
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json*"))
    assert "Chris" not in kept and ben.password not in kept and ben.email not in kept


def test_collect_does_not_wait_for_people_who_are_not_there(place: Path, tmp_path: Path) -> None:
    ben, chris = only(place, "Ben", "Chris")
    people.remove(place, chris.email)
    other = tmp_path / "other"
    other.mkdir()
    again = Labelling(other, place)
    again.judge_what_is_served(ben)
    assert "2 people are asked about each, and fewer can judge: trueup people add NAME" in again.waiting(wait=True)


def test_what_one_person_judged_twice_or_without_a_verdict_is_given_to_another(place: Path, tmp_path: Path) -> None:
    ben, chris, dana = only(place, "Ben", "Chris", "Dana")
    labelling = Labelling(tmp_path, place)
    twice, without = labelling.tasks["0a"], labelling.tasks["1b"]
    for verdict in ("up", "down", "up"):
        labelling.judge(ben, twice, verdict)
    empty = labelling.browser(ben).post(f"/api/tasks/{without}/annotations/", json={"result": []})
    assert empty.status_code == 201, empty.text[:300]
    assert len(labelling.judge_what_is_served(ben)) == 6  # neither of the two is given to ben once more
    assert not {twice, without} <= set(
        labelling.judge_what_is_served(chris)
    )  # three annotations are there, of one person
    said = labelling.waiting()
    assert "1 judged twice by one person, whose later judgement counts: given to somebody else as well" in said
    assert "1 not counted: submitted without a thumb" in said
    assert f"person {dana.id}" in said
    assert {twice, without} <= {*labelling.judge_what_is_served(chris), *labelling.judge_what_is_served(dana)}
    metrics = labelling.collect(wait=False)  # two people have judged each answer
    assert metrics["num_annotators"] == 3 and metrics["counts"]["votes"] == 16
    for person in (ben, chris, dana):
        assert labelling.judge_what_is_served(person) == []  # and no answer is given to a third one
    overlaps = {task["data"]["uid"]: task["overlap"] for task in Client(connect(place)).pull(labelling.project)}
    assert {uid: number for uid, number in overlaps.items() if number != 2} == {"0a": 4, "1b": 3}


@pytest.mark.slow
def test_a_second_person_is_asked_after_one_answer_was_given_to_two(place: Path, tmp_path: Path) -> None:
    """Label Studio gives tasks to more people only where no task has a number of its own yet."""
    ben, chris = only(place, "Ben", "Chris")
    labelling = Labelling(tmp_path, place, annotations_per_completion=1)
    empty = labelling.browser(ben).post(f"/api/tasks/{labelling.tasks['0a']}/annotations/", json={"result": []})
    assert empty.status_code == 201
    labelling.judge_what_is_served(ben)
    labelling.waiting()
    assert labelling.judge_what_is_served(chris) == [labelling.tasks["0a"]]
    assert "waiting 0/8" in labelling.waiting(annotations_per_completion=2)
    assert len(labelling.judge_what_is_served(chris)) == 7
    labelling.judge_what_is_served(only(place, "Dana")[0])
    assert labelling.collect(wait=False, annotations_per_completion=2)["counts"]["votes"] == 16


def test_what_one_person_skips_is_given_to_the_others(place: Path, tmp_path: Path) -> None:
    ben, chris, dana = only(place, "Ben", "Chris", "Dana")
    labelling = Labelling(tmp_path, place)
    skipped = labelling.tasks["2b"]
    skip = {"result": [], "was_cancelled": True}
    answer = labelling.browser(ben).post(f"/api/tasks/{skipped}/annotations/", json=skip)
    assert answer.status_code == 201
    assert skipped not in labelling.judge_what_is_served(ben)
    assert len(labelling.judge_what_is_served(chris)) == 8
    said = labelling.waiting()
    assert "waiting 7/8" in said and said.count("still to judge, at most:") == 1
    assert f"still to judge, at most: person {dana.id} 1" in said
    assert labelling.judge_what_is_served(dana) == [skipped]
    assert labelling.collect(wait=False)["unusable_annotations"] == {"skipped": 1}


def by_text(data: dict[str, Any]) -> str:
    """Thumbs up for the first answer to each prompt and for what is gold, whatever task asks about it."""
    return "up" if data["response"].startswith(("answer a", "good")) else "down"


def test_three_people_are_served_an_overlap_and_collect_ends_by_itself(place: Path, tmp_path: Path) -> None:
    three = only(place, "Ben", "Chris", "Dana")
    labelling = Labelling(tmp_path, place, overlap={"share": 0.5, "people": 3})
    assert "waiting 0/8" in labelling.waiting()
    with ThreadPoolExecutor(1) as pool:
        frozen = pool.submit(labelling.collect, wait=True)
        given = [(person.id, task) for person in three * 16 for task in labelling.judge_what_is_served(person, most=1)]
        metrics = frozen.result(timeout=60)
    rows = list(read_jsonl(tmp_path / "collect" / "annotations.jsonl"))
    people_of = {uid: {row["annotator"] for row in rows if row["uid"] == uid} for uid in labelling.tasks}
    assert Counter(len(found) for found in people_of.values()) == {3: 4, 1: 4}
    assert len(rows) == len(given) == len(set(given)) == 4 * 3 + 4
    several = {uid[0] for uid, found in people_of.items() if len(found) == 3}
    assert len(several) == 2 and several == {uid[0] for uid in people_of if len(people_of[uid]) == 3}
    assert (metrics["asked"]["of_several_people"], metrics["num_compared"]) == (4, 4 * 3)
    rows_of_more = [
        {"uid": f"{n}{side}", "prompt_id": str(n), "completion": f"answer {side} to {n}", "finish": "eos"}
        | {"messages": [{"role": "user", "content": f"question {n}"}]}
        for n in range(8)
        for side in "ab"
    ]
    write_jsonl(tmp_path / "completions.jsonl", rows_of_more)
    assert "waiting 8/16" in labelling.waiting()
    tasks = Client(connect(place)).pull(labelling.project)
    overlaps = {task["data"]["uid"]: task["overlap"] for task in tasks}
    assert Counter(overlaps.values()) == {3: 8, 1: 8}
    assert {uid for uid in labelling.tasks if uid[0] in several} <= {uid for uid in overlaps if overlaps[uid] == 3}


def test_an_overlap_does_not_wait_for_people_who_are_not_there(place: Path, tmp_path: Path) -> None:
    two = only(place, "Ben", "Chris")
    labelling = Labelling(tmp_path, place, overlap={"share": 0.5, "people": 3})
    for person in two:
        labelling.judge_what_is_served(person)
    said = labelling.waiting(wait=True)
    assert "waiting 4/8" in said and "4 have a verdict, but not yet from as many people" in said
    assert (
        "3 people are asked about some, and fewer can judge: trueup people add NAME, or set collect.overlap.p" in said
    )
    assert labelling.collect(wait=True, overlap={"share": 0.5, "people": 2})["num_compared"] == 4


def test_gold_and_repetitions_are_judged_and_never_trained_on(place: Path, tmp_path: Path) -> None:
    ben, chris = only(place, "Ben", "Chris")
    folder = tmp_path / "runs" / "several"
    folder.mkdir(parents=True)
    gold = [{"prompt": f"gold {n}", "completion": f"{'good' if n else 'bad'} {n}", "label": n > 0} for n in range(4)]
    write_jsonl(tmp_path / "gold.jsonl", gold)
    labelling = Labelling(folder, place, gold="gold.jsonl", repeated_share=0.25)
    assert len(labelling.tasks) == 8 + 4 + 2
    listed = json.dumps([task["data"] for task in Client(connect(place)).pull(labelling.project)])
    assert "label" not in listed and "right" not in listed
    assert len(labelling.judge_what_is_served(ben, by_text)) == 14
    served = labelling.judge_what_is_served(chris, lambda data: "up")
    assert len(served) == 4  # gold alone is given to everybody
    metrics = labelling.collect(wait=False)
    assert metrics["asked"] == {"questions": 8, "of_several_people": 0, "gold": 4, "repeated": 2}
    shares = {who: (share["estimate"], share["num"]) for who, share in metrics["gold"]["people"].items()}
    assert shares == {str(ben.id): (1.0, 4), str(chris.id): (0.75, 4)}
    assert (metrics["repeated"]["all"]["estimate"], metrics["repeated"]["all"]["num"]) == (1.0, 2)
    assert metrics["became"] == {"thumb": {"pairs and rows": 8}}
    trained = (folder / "collect" / "pairs.jsonl").read_text() + (folder / "collect" / "rows.jsonl").read_text()
    assert "gold" not in trained and "good" not in trained
    assert len(list(read_jsonl(folder / "collect" / "checks.jsonl"))) == 8 + 2
    said = collect.says(metrics, labelling.run)
    assert "gold questions: 4, 88% of 8 judgements right" in said
    labelling.collect(wait=False)
    assert len(Client(connect(place)).pull(labelling.project)) == 14  # published twice makes no duplicate


def test_what_is_disputed_goes_to_an_adjudicator_whose_verdict_wins(place: Path, tmp_path: Path) -> None:
    ben, chris, dana = only(place, "Ben", "Chris", "Dana")
    labelling = Labelling(tmp_path, place)
    labelling.judge_what_is_served(ben)
    labelling.judge_what_is_served(
        chris, lambda data: "up" if data["uid"] in ("0a", "1a", "2a", "3a", "3b") else "down"
    )
    metrics = labelling.collect(wait=False)
    assert (metrics["num_disputed"], metrics["counts"]["pairs"]) == (1, 4)
    assert any("disputed: 1; to have one person settle" in line for line in collect.says(metrics, labelling.run))
    said = labelling.waiting(adjudicate=True)
    assert "waiting 0/1" in said and f"/projects/{labelling.project}/" not in said
    first, labelling.project = labelling.project, int(said.partition("/projects/")[2].partition("/")[0])
    assert len(labelling.judge_what_is_served(dana, lambda data: "up")) == 1
    for wanted in (True, False):  # once given, the verdict holds without asking for it again
        metrics = labelling.collect(wait=False, adjudicate=wanted)
        assert metrics["counts"]["adjudicated"] == metrics["counts"]["overruled_by_adjudication"] == 1
        assert metrics["counts"]["upheld_by_adjudication"] == 1
        assert metrics["num_annotators"] == 2 and sum(metrics["became"]["thumb"].values()) == 17
        pairs = list(read_jsonl(tmp_path / "collect" / "pairs.jsonl"))
        assert {pair["prompt_id"] for pair in pairs} == {"0", "1", "2"}  # of the fourth, both answers are good
    assert labelling.newer() == ""
    assert labelling.judge_again(dana, "down") == 1
    assert labelling.newer().startswith("Label Studio holds newer verdicts (1 changed)")
    tasks = Client(connect(place)).pull(labelling.project)
    assert len(tasks) == 1 and len(Client(connect(place)).pull(first)) == 8


@pytest.mark.slow
def test_a_person_counts_once_gold_questions_were_judged_rightly(place: Path, tmp_path: Path) -> None:
    ben, chris = only(place, "Ben", "Chris")
    folder = tmp_path / "runs" / "several"
    folder.mkdir(parents=True)
    gold = [{"prompt": f"gold {n}", "completion": f"{'good' if n else 'bad'} {n}", "label": n > 0} for n in range(4)]
    write_jsonl(tmp_path / "gold.jsonl", gold)
    labelling = Labelling(folder, place, gold="gold.jsonl", qualification={"gold": 3, "accuracy": 0.8})
    with pytest.raises(ConfigError, match=r"collect\.qualification: 4 gold questions"):
        labelling.collect(wait=False, qualification={"gold": 5, "accuracy": 0.8})
    assert len(labelling.judge_what_is_served(chris, lambda data: "up" if "gold" in str(data) else "down")) == 12
    said = labelling.waiting()  # of the four gold questions one is wrong
    assert f"8 judgements do not count, of people who are not qualified yet: person {chris.id}, 3 of 4 gold" in said
    assert "waiting 0/8" in said and f"still to judge, at most: Ben ({ben.id}) 8" in said
    assert len(labelling.judge_what_is_served(ben, by_text)) == 12  # what chris judged is given to ben all the same
    metrics = labelling.collect(wait=True)
    assert (metrics["num_annotators"], metrics["judgements_of_unqualified_people"]) == (1, 8)
    assert metrics["became"] == {"thumb": {"pairs and rows": 8}}
    checked = list(read_jsonl(folder / "collect" / "checks.jsonl"))
    assert Counter(row["check"] for row in checked) == {"gold": 8, "not qualified": 8}
    assert labelling.newer() == ""
    assert labelling.collect(wait=False, qualification={"gold": 4, "accuracy": 0.75})["num_annotators"] == 2
