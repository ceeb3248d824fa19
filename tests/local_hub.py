"""A small hub on 127.0.0.1: accounts, creating a repository, preupload, Git LFS and commits, as the client asks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from fake_server import Answer, Asked, Fake, serving
from huggingface_hub import ModelCard

TOKEN = "hf_a_token_of_ada"


@dataclass
class Repository:
    """What was pushed."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)

    def tags(self) -> list[str]:
        card = self.files.get("README.md")
        return [] if card is None else list(ModelCard(card.decode()).data.tags or [])


@dataclass
class Hub:
    """The repositories of `ada` and the organization `larkspur`."""

    repos: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    broken: bool = False  # uploads of large files fail
    fake: Fake = field(default_factory=lambda: Fake("", lambda asked: (404, {}, b"")))

    def answer(self, asked: Asked) -> Answer:
        path = unquote(asked.path.partition("?")[0])
        if path.startswith("/lfs/"):  # as a store of objects has it: the address is the permission
            if self.broken:
                return 400, {}, b"the store is full"
            self.large[path.removeprefix("/lfs/")] = asked.body
            return 200, {}, b""
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {}, b'{"error": "Invalid credentials"}'
        body = (
            asked.body if "ndjson" in asked.headers.get("content-type", "") else asked.body and json.loads(asked.body)
        )
        found = self._route(asked.method, path, body)
        return (
            (404, {"x-error-code": "RepoNotFound"}, b"{}") if found is None else (200, {}, json.dumps(found).encode())
        )

    def _route(self, method: str, path: str, body: object) -> object:
        if path == "/api/whoami-v2":
            return {"name": "ada", "orgs": [{"name": "larkspur"}]}
        if path == "/api/validate-yaml":
            return {"warnings": [], "errors": []}
        if path == "/api/repos/create":
            assert isinstance(body, dict)
            name = f"{body['organization']}/{body['name']}"
            self.repos.setdefault(name, Repository(body.get("visibility") == "private"))
            return {"url": f"{self.fake.url}/{name}"}
        if path.endswith(".git/info/lfs/objects/batch"):
            assert isinstance(body, dict)
            href = {o["oid"]: f"{self.fake.url}/lfs/{o['oid']}" for o in body["objects"]}
            return {"objects": [o | {"actions": {"upload": {"href": href[o["oid"]]}}} for o in body["objects"]]}
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        action = path.removeprefix(f"/api/models/{name}")
        repo = self.repos.get(name)
        if repo is None:
            return None
        if action.startswith("/preupload/"):
            assert isinstance(body, dict)
            modes = {f["path"]: "lfs" if f["path"].endswith(".safetensors") else "regular" for f in body["files"]}
            return {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}
        if action.startswith("/commit/"):
            assert isinstance(body, bytes)
            self._commit(repo, [json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"/{name}/commit/1", "commitOid": "1" * 40}
        if action.startswith("/tree/"):
            return [{"type": "file", "path": p, "size": len(b), "oid": "1" * 40} for p, b in repo.files.items()]
        files = [{"rfilename": path} for path in repo.files]
        return {"id": name, "private": repo.private, "tags": repo.tags(), "siblings": files, "sha": "1" * 40}

    def _commit(self, repo: Repository, lines: list[dict[str, dict[str, str]]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del repo.files[value["path"]]


@contextmanager
def running() -> Iterator[Hub]:
    """A hub without repositories; HF_ENDPOINT is `hub.fake.url`."""
    hub = Hub()
    with serving(hub.answer) as fake:
        hub.fake = fake
        yield hub
