"""Where a run's questions were published: its project on each server, found again however the address is spelled."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from trueup.errors import FeedbackError
from trueup.run.address import canonical
from trueup.run.artifacts import write_json
from trueup.run.files import read_json


class Published:
    """The projects of a run, in its store's folder: one for each server and `interface`."""

    def __init__(self, folder: Path, interface: str) -> None:
        self.folder = folder
        self._projects_path = folder / ("projects.json" if interface == "thumbs" else f"projects-{interface}.json")
        folder.mkdir(parents=True, exist_ok=True)

    def project(self, server: str) -> tuple[int, str] | None:
        """(id on the server, our own key) of the project made earlier there; by id, since titles repeat."""
        known = self._known(server)
        return None if known is None or known["id"] is None else (known["id"], known["key"])

    def begin_project(self, server: str) -> str:
        """The key of the project about to be made there, noted before: the server's answer may be lost on the way.

        It is our own, since ids begin again on a new server.
        """
        known = self._known(server)
        key: str = secrets.token_hex(6) if known is None else known["key"]
        self._note(server, {"id": None, "key": key})
        return key

    def remember_project(self, server: str, project: int, key: str) -> tuple[int, str]:
        """Note the project's id; returns `project` and `key`."""
        self._note(server, (self._known(server) or {}) | {"id": project, "key": key})
        return project, key

    def screen(self, server: str) -> str | None:
        """The digest of the screen that we last put on the project there; None where none was noted."""
        return (self._known(server) or {}).get("screen")

    def remember_screen(self, server: str, digest: str) -> None:
        """Note what we put on the project there, by which a change of somebody else's is told."""
        self._note(server, (self._known(server) or {}) | {"screen": digest})

    def other_keys(self, key: str) -> list[str]:
        """The keys of the projects made at other addresses, which may be other names of one server."""
        return [known["key"] for known in self._projects().values() if known["id"] is not None and known["key"] != key]

    def keys_of_adjudication(self) -> set[str]:
        """The keys of the projects in which what people disputed was judged once more."""
        found = [read_json(path) or {} for path in self.folder.glob("projects-*-adjudication.json")]
        return {known["key"] for projects in found for known in projects.values() if _is_project(known)}

    def _known(self, server: str) -> dict[str, Any] | None:
        """What was noted of a server; of two spellings of its address, what was noted first."""
        one = canonical(server)
        return next((known for name, known in self._projects().items() if canonical(name) == one), None)

    def _note(self, server: str, known: dict[str, Any]) -> None:
        projects, one = self._projects(), canonical(server)
        name = next((name for name in projects if canonical(name) == one), one)
        write_json(self._projects_path, projects | {name: known})

    def _projects(self) -> dict[str, Any]:
        path = self._projects_path
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and all(_is_project(known) for known in found.values()):
            return found
        raise FeedbackError(
            str(path),
            found="not what trueup wrote there",
            expected="the run's projects, by server",
            next_step="restore it from a copy; or remove it, and the next collect publishes a new project "
            "(labels already pulled are kept)",
        )


def _is_project(known: Any) -> bool:
    return isinstance(known, dict) and isinstance(known.get("id"), int | None) and isinstance(known.get("key"), str)
