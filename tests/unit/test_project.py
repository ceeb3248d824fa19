"""A run that waits bears a server that is away for a while, and one that does not wait says so at once."""

import json
from pathlib import Path

import pytest
from fake_server import Answer, Asked, serving

from trueup.feedback import api
from trueup.feedback.api import RequestError
from trueup.feedback.project import Project
from trueup.run.artifacts import write_json
from trueup.run.run_file import LabelStudioConfig

THUMB = {"from_name": "thumb", "value": {"choices": ["up"]}}
TASK = {"id": 1, "data": {"uid": "u"}, "updated_at": "2026-11-27T10:00:00Z"}


@pytest.mark.parametrize("away", [502, 503, 504, 429])
@pytest.mark.parametrize("wait", [True, False])
def test_a_server_that_is_away(away: int, wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PAUSES_S", ())
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "t" * 40)
    listings = 0

    def answer(asked: Asked) -> Answer:
        nonlocal listings
        if not asked.path.startswith("/api/tasks"):
            return 200, {}, b"{}"
        listings += 1
        annotations = [{"id": 5, "result": [THUMB]}] if listings > 5 else []
        task = TASK | {"annotations": annotations}
        return (away if 1 < listings < 5 else 200), {}, json.dumps({"tasks": [task], "total": 1}).encode()

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
