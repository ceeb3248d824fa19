"""What came from Label Studio, append-only: labels keep arriving and minds change, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trueup.feedback.annotations import Annotation
from trueup.run.artifacts import write_json

SHAPES = {"annotation_id": int, "uid": str, "annotator": str, "up": bool, "updated_at": str}


class Store:
    """`runs/<name>/store/`: the project's id, and one line for each version of each annotation ever seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "annotations.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def project(self, server: str) -> tuple[int, str] | None:
        """(id on the server, our own key) of the project made earlier there; by id, since titles repeat."""
        known = self._projects().get(server)
        return None if known is None else (int(known["id"]), str(known["key"]))

    def remember_project(self, server: str, project: int) -> tuple[int, str]:
        """Note the project under a fresh key: ids begin again on a new server, keys do not."""
        key = secrets.token_hex(6)
        write_json(self.folder / "projects.json", self._projects() | {server: {"id": project, "key": key}})
        return project, key

    def _projects(self) -> dict[str, Any]:
        path = self.folder / "projects.json"
        return json.loads(path.read_text()) if path.exists() else {}

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

    def current(self, present: set[int], key: str) -> list[dict[str, Any]]:
        """The last version of each annotation: of project `key` those still there (`present` ids), of others all.

        A project lost with its server keeps its labels here. They come in the order in which their last versions were
        seen, which no clock that was put back can change.
        """
        latest: dict[tuple[str, int], dict[str, Any]] = {}
        for row in self._rows():
            latest.pop((row["project"], row["annotation_id"]), None)
            latest[(row["project"], row["annotation_id"])] = row
        return [row for (project, number), row in latest.items() if project != key or number in present]

    def gone(self, present: set[int], key: str) -> int:
        """How many annotations of project `key` were seen earlier and are no longer there."""
        return len({row["annotation_id"] for row in self._rows() if row["project"] == key} - present)

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


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # a byte that is no UTF-8 is a ValueError too
        return None
    if not isinstance(row, dict) or not isinstance(row.get("project"), str):
        return None
    return row if all(isinstance(row.get(name), shape) for name, shape in SHAPES.items()) else None
