"""What came from Label Studio, append-only: labels keep arriving and minds change, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback.annotations import Annotation
from trueup.run.address import canonical
from trueup.run.artifacts import write_json

SHAPES = {"annotation_id": int, "uid": str, "annotator": str, "up": bool, "updated_at": str}


class Store:
    """`runs/<name>/store/`: the project's id, and one line for each version of each annotation ever seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "annotations.jsonl"
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
        self._note(server, {"id": project, "key": key})
        return project, key

    def other_keys(self, key: str) -> list[str]:
        """The keys of the projects made at other addresses, which may be other names of one server."""
        return [known["key"] for known in self._projects().values() if known["id"] is not None and known["key"] != key]

    def _known(self, server: str) -> dict[str, Any] | None:
        """What was noted of a server; of two spellings of its address, what was noted first."""
        one = canonical(server)
        return next((known for name, known in self._projects().items() if canonical(name) == one), None)

    def _note(self, server: str, known: dict[str, Any]) -> None:
        projects, one = self._projects(), canonical(server)
        name = next((name for name in projects if canonical(name) == one), one)
        write_json(self.folder / "projects.json", projects | {name: known})

    def _projects(self) -> dict[str, Any]:
        path = self.folder / "projects.json"
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

    def append(self, annotations: list[Annotation], key: str) -> int:
        """Add what is not the last version seen; return how many. On disk (fsync) when this returns."""
        last = {row["annotation_id"]: row for row in self._rows() if row["project"] == key}
        seen = sorted(annotations, key=lambda a: (a.updated_at, a.annotation_id))
        rows = [{"project": key} | json.loads(json.dumps(asdict(a))) for a in seen]
        new = [row for row in rows if last.get(row["annotation_id"]) != row]
        self._cut_torn_line()
        with self.path.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in new)
            out.flush()
            os.fsync(out.fileno())
        return len(new)

    def current(self, present: set[int], key: str, hidden: Set[str] = frozenset()) -> list[dict[str, Any]]:
        """The last version of each annotation: of project `key` those still there (`present` ids), of others all.

        A project lost with its server keeps its labels here, and so do the completions `hidden` (uids), which the
        server cannot show. The rows come in the order in which their last versions were seen, which no clock that was
        put back can change.
        """
        return [row for row in self._latest() if _counts(row, present, key, hidden)]

    def num_gone(self, present: set[int], key: str, hidden: Set[str] = frozenset()) -> int:
        """How many annotations were seen earlier and are no longer on the server."""
        return sum(not _counts(row, present, key, hidden) for row in self._latest())

    def _latest(self) -> list[dict[str, Any]]:
        latest: dict[tuple[str, int], dict[str, Any]] = {}
        for row in self._rows():
            latest.pop((row["project"], row["annotation_id"]), None)
            latest[(row["project"], row["annotation_id"])] = row
        return list(latest.values())

    def broken(self) -> list[str]:
        """Each line that cannot be read, by its number; a last line torn by a crash is none: the server has it."""
        return [f"{self.path.name}:{number}" for number, row in self._lines() if row is None]

    def _rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self._lines() if row is not None]

    def _lines(self) -> list[tuple[int, dict[str, Any] | None]]:
        """Every whole line with its number; None for one that holds no annotation."""
        whole = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        return [(number, _row(line)) for number, line in enumerate(whole, start=1)]

    def _cut_torn_line(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        if not data.endswith(b"\n"):
            with self.path.open("ab") as out:
                out.truncate(data.rfind(b"\n") + 1)


def _is_project(known: Any) -> bool:
    return isinstance(known, dict) and isinstance(known.get("id"), int | None) and isinstance(known.get("key"), str)


def _counts(row: dict[str, Any], present: set[int], key: str, hidden: Set[str]) -> bool:
    return row["project"] != key or row["annotation_id"] in present or row["uid"] in hidden


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # a byte that is no UTF-8 is a ValueError too
        return None
    if not isinstance(row, dict) or not isinstance(row.get("project"), str):
        return None
    return row if all(isinstance(row.get(name), shape) for name, shape in SHAPES.items()) else None
