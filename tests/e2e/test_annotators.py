"""Who is added by `people add` may judge on the real server, and do nothing else: by page, by API, in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from test_people import session

from trueup.feedback import environment, people
from trueup.feedback.client import Client
from trueup.feedback.connection import connect
from trueup.feedback.screens import screen
from trueup.feedback.tasks import to_task

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
THUMB = {"from_name": "thumb", "to_name": "response", "type": "choices", "value": {"choices": ["up"]}}


@dataclass
class Desk:
    """A project with three tasks, the first of which the administrator judged; and a login with its token."""

    admin: httpx.Client
    judge: httpx.Client  # with a session, as a browser has it
    token: dict[str, str]
    person: people.Person
    project: int
    tasks: list[int]
    annotation: int  # the administrator's


@pytest.fixture(scope="module")
def desk(labelstudio: Path) -> Iterator[Desk]:
    connection, person = connect(labelstudio), people.add(labelstudio, "Jo")
    client, judge = Client(connection), session(labelstudio, person)
    project = client.create_project("rights", screen("thumbs"))
    rows = [{"uid": f"r{n}", "messages": [{"role": "user", "content": "q"}], "completion": f"a{n}"} for n in range(3)]
    client.publish(project, [to_task(row) for row in rows])
    token = judge.get("/api/current-user/token").json()["token"]
    headers = {"Authorization": f"Token {connection.token}"}
    with httpx.Client(base_url=connection.url, headers=headers, trust_env=False, timeout=60) as admin:
        tasks = sorted(task["id"] for task in client.pull(project))
        made = admin.post(f"/api/tasks/{tasks[0]}/annotations/", json={"result": [THUMB]}).json()["id"]
        yield Desk(admin, judge, {"Authorization": f"Token {token}"}, person, project, tasks, made)
    people.remove(labelstudio, str(person.id))  # or other tests of this server would wait for this person


def addresses() -> list[str]:
    """Every address that Label Studio's own list has, but its files."""
    listed = next(environment.folder().glob("lib/python3*/site-packages/label_studio/core/all_urls.json"))
    urls = [one["url"] for one in json.loads(listed.read_bytes())]
    return sorted({url for url in urls if not re.search(r"^/(static|dm|react-app|label-studio-frontend|sw|fav)", url)})


def filled(address: str, desk: Desk) -> str:
    """The address with the project, the first task or the administrator's annotation in it, as fits."""
    number = desk.tasks[0] if "/tasks/" in address.replace("<int:pk>/tasks", "") else desk.project
    number = desk.annotation if address.startswith("/api/annotations") else number
    text = re.sub(r"<[^>]*format[^>]*>", "json", address.replace("\\", ""))
    return re.sub(r"<[^>]+>", str(number), text)


OPEN = {
    "GET": {
        *("/", "/projects/", "/projects/{p}/data/?labeling=1", "/user/login/", "/user/signup/", "/logout/"),
        *("/api/projects/", "/api/projects/counts/", "/api/projects/{p}/", "/api/projects/{p}/next/"),
        *("/api/projects/{p}/label-stream-history/", "/api/dm/views/", "/api/dm/views/{p}/", "/api/dm/columns/"),
        *("/api/dm/project/", "/api/dm/actions/", "/api/tasks/{t}/"),
        *(
            "/api/tasks/{t}/drafts",
            "/api/tasks/{t}/annotations/{t}/drafts",
            "/api/annotations/{a}/",
            "/api/drafts/{p}/",
        ),
        *("/api/current-user/token", "/api/current-user/whoami", "/api/current-user/product-tour"),
        *("/api/current-user/hotkeys/", "/api/session-policy/", "/api/version/", "/version/", "/health/"),
        *(
            "/feature-flags/",
            "/heidi-tips/",
            "/__lsa/",
            "/api/users/{p}/avatar/",
            "/api/dm/views.json/",
            "/api/ml/",
            "/api/label_links/",
            "/api/users/",
        ),
    }
}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["session", "token"])
def test_of_all_addresses_of_label_studio_only_those_for_judging_are_open(desk: Desk, way: str) -> None:
    """Refused: 403, or a page that leads back to judging. What else an address says, the guard let through."""
    names = {"p": desk.project, "t": desk.tasks[0], "a": desk.annotation}
    expected = {one.format(**names) for one in OPEN["GET"]}
    found = set()
    for address in addresses():
        path = filled(address, desk)
        if path in ("/logout/", "/user/login/", "/user/signup/") or re.match("/(admin|django-rq)/.+", path):
            continue
        if way == "token" and not path.startswith("/api/"):  # pages know sessions alone
            continue
        if way == "session":
            answer = desk.judge.get(path, follow_redirects=False)
        else:
            answer = httpx.get(str(desk.admin.base_url) + path, headers=desk.token, trust_env=False, timeout=60)
        back = re.fullmatch(r"/projects/(\d+/data\?labeling=1)?", answer.headers.get("location", ""))
        if answer.status_code not in (401, 403, 404, 405) and not back:
            found.add(path.replace(".json/", "/"))  # the same, under the name of a file
    assert found - expected == set()


def test_nothing_of_the_projects_is_changed_deleted_or_exported(desk: Desk) -> None:
    project, task, annotation = desk.project, desk.tasks[0], desk.annotation
    refused: list[tuple[str, str, Any]] = [
        ("DELETE", f"/api/projects/{project}/", None),
        ("PATCH", f"/api/projects/{project}/", {"title": "mine"}),
        ("POST", "/api/projects/", {"title": "another"}),
        ("POST", f"/api/projects/{project}/import", [{"data": {"response": "x"}}]),
        ("GET", f"/api/projects/{project}/export?exportType=JSON", None),
        ("POST", f"/api/projects/{project}/exports/", {}),
        ("DELETE", f"/api/tasks/{task}/", None),
        ("PATCH", f"/api/tasks/{task}/", {"data": {"uid": "x"}}),
        (
            "POST",
            f"/api/dm/actions/?id=delete_tasks&project={project}",
            {"selectedItems": {"all": True, "excluded": []}},
        ),
        ("GET", f"/api/annotations/{annotation}/", None),
        ("GET", f"/api/tasks/{task}/annotations/", None),
        ("PATCH", f"/api/annotations/{annotation}/", {"result": []}),
        ("DELETE", f"/api/annotations/{annotation}/", None),
        ("POST", f"/api/tasks/{task}/annotations/", {"result": [THUMB], "completed_by": 1}),
        ("GET", "/api/invite", None),
        ("POST", "/api/webhooks/", {"url": "http://example.org"}),
        ("PATCH", "/api/users/1/", {"first_name": "x"}),
    ]
    before = desk.admin.get(f"/api/tasks/?project={project}&fields=all").json()
    for method, path, body in refused:
        for headers in (desk.token, {}):  # with the token alone, and with the session
            browser = httpx.Client(base_url=desk.admin.base_url, trust_env=False) if headers else desk.judge
            answer = browser.request(method, path, json=body, headers=headers)
            assert (answer.status_code, "judging, and nothing else" in answer.text) == (403, True), (method, path)
    disguised = json.dumps({"result": [THUMB], "completed_by": 1}).encode("cp500")  # EBCDIC, which Django can read
    kind = {"content-type": "application/json; charset=cp500"}
    assert desk.judge.post(f"/api/tasks/{task}/annotations/", content=disguised, headers=kind).status_code == 403
    form = {"result": "[]", "completed_by": "1"}
    assert desk.judge.post(f"/api/tasks/{task}/annotations/", data=form).status_code == 403
    assert desk.admin.get(f"/api/tasks/?project={project}&fields=all").json() == before


def test_nobody_sees_how_others_judged(desk: Desk) -> None:
    path = f"/api/tasks/{desk.tasks[0]}/"
    assert len(desk.admin.get(path).json()["annotations"]) == 1
    made = desk.judge.post(f"{path}annotations/", json={"result": [THUMB]})
    assert made.status_code == 201
    assert [one["id"] for one in desk.judge.get(path).json()["annotations"]] == [made.json()["id"]]
    assert len(desk.admin.get(path).json()["annotations"]) == 2
    listed = desk.judge.get(f"/api/tasks/?project={desk.project}&fields=all").json()["tasks"]
    assert {task["id"]: len(task["annotations"]) for task in listed} == dict(zip(desk.tasks, [1, 0, 0], strict=True))
    assert not [task for task in listed if task.get("annotators") or task.get("annotations_results")]
    assert [one["id"] for one in desk.judge.get("/api/users/").json()] == [desk.person.id]
    assert desk.judge.delete(f"/api/annotations/{made.json()['id']}/").status_code == 204
    assert desk.judge.get(path).json()["annotations"] == []


def test_one_judges_changes_ones_mind_and_takes_it_back(desk: Desk) -> None:
    given = desk.judge.get(f"/api/projects/{desk.project}/next").json()["id"]
    made = desk.judge.post(f"/api/tasks/{given}/annotations/", json={"result": [THUMB]})
    assert made.status_code == 201 and made.json()["completed_by"] == desk.person.id
    own = f"/api/annotations/{made.json()['id']}/"
    assert desk.judge.patch(own, json={"result": [THUMB], "completed_by": desk.person.id}).status_code == 200
    assert desk.judge.delete(own).status_code == 204


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_in_a_browser_settings_lead_back_to_judging(desk: Desk) -> None:
    settings, labelling = f"/projects/{desk.project}/settings/danger-zone", f"/projects/{desk.project}/data?labeling=1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = chromium.new_page(base_url=str(desk.admin.base_url), viewport={"width": 1366, "height": 768})
        page.goto("/user/login/")
        page.fill("input[name=email]", desk.person.email)
        page.fill("input[name=password]", desk.person.password)
        page.click("button[type=submit]")
        for address in (settings, f"/projects/{desk.project}/data", f"/projects/{desk.project}/"):
            page.goto(address)
            expect(page.locator(".rl-ask")).to_be_visible(timeout=60_000)
            assert labelling in page.url
        assert not page.get_by_role("link", name="Settings").is_visible()
        page.evaluate(f"history.pushState({{}}, '', '{settings}')")  # as Label Studio's own links do
        page.wait_for_url(re.compile("labeling=1"))
        expect(page.locator(".rl-ask")).to_be_visible(timeout=60_000)
        assert not page.get_by_text("Delete Project").is_visible()
        chromium.close()
