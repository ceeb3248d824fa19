"""A run that waits bears a server that is away for a while, and one that does not wait says so at once."""

import json
from pathlib import Path

import pytest
from fake_server import Answer, Asked, serving

from trueup.feedback.faults import RequestError
from trueup.feedback.project import Project
from trueup.run.artifacts import write_json
from trueup.run.run_file import LabelStudioConfig

THUMB = {"from_name": "thumb", "value": {"choices": ["up"]}}
TASK = {"id": 1, "data": {"uid": "u"}, "updated_at": "2026-11-27T10:00:00Z"}


@pytest.mark.parametrize("away", [502, 503, 504, 429])
@pytest.mark.parametrize("wait", [True, False])
def test_a_server_that_is_away(away: int, wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "t" * 40)
    listings = 0

    def answer(asked: Asked) -> Answer:
        nonlocal listings
        if not asked.path.startswith("/api/tasks"):
            return 200, {}, b"{}"
        listings += 1
        annotations = [{"id": 5, "result": [THUMB]}] if listings > 9 else []
        task = TASK | {"annotations": annotations}
        return (away if 1 < listings < 9 else 200), {}, json.dumps({"tasks": [task], "total": 1}).encode()

    with serving(answer) as fake:
        write_json(tmp_path / "projects.json", {fake.url: {"id": 3, "key": "k"}})
        settings = LabelStudioConfig(url=fake.url, data_dir=tmp_path, wait=wait, poll_s=0.01)
        project = Project(settings, tmp_path)
        assert project.known == (3, "k")
        if wait:
            assert project.labels(project.known, ["u"], each=1, wanted=1).labelled == 1
            return
        project.client.pull(3)
        with pytest.raises(RequestError, match=f"status {away}"):
            project.labels(project.known, ["u"], each=1, wanted=1)


def test_a_server_under_another_name_has_the_same_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "t" * 40)
    made: list[dict[str, object]] = []

    def answer(asked: Asked) -> Answer:
        path = asked.path.removeprefix("/behind-a-proxy")
        if asked.method == "POST" and path == "/api/projects/":
            made.append(json.loads(asked.body) | {"id": 7 + len(made), "maximum_annotations": 1})
            return 201, {}, json.dumps(made[-1]).encode()
        if path.startswith("/api/projects/?"):
            return 200, {}, json.dumps({"results": made, "next": None}).encode()
        return 200, {}, json.dumps(made[0]).encode()

    with serving(answer) as fake:
        first = Project(LabelStudioConfig(url=fake.url, data_dir=tmp_path), tmp_path).make("r", 1)
        again = Project(LabelStudioConfig(url=f"{fake.url}/behind-a-proxy", data_dir=tmp_path), tmp_path).make("r", 1)
        assert (first, again) == ((7, first[1]), first)
        elsewhere = Project(LabelStudioConfig(url=fake.url, data_dir=tmp_path), tmp_path / "another run")
        assert elsewhere.make("r", 1)[0] == 8  # another run's project is never taken
