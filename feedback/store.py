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
        """Add versions not seen before; return how many. On disk (fsync) when this returns."""
        seen = {(row["project"], row["annotation_id"], row["updated_at"]) for row in self._lines()}
        new = [a for a in annotations if (key, a.annotation_id, a.updated_at) not in seen]
        self._end_torn_line()
        with self.path.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps({"project": key} | asdict(a), ensure_ascii=False) + "\n" for a in new)
            out.flush()
            os.fsync(out.fileno())
        return len(new)

    def current(self, present: set[int], key: str) -> list[dict[str, Any]]:
        """The last verdict of each person on each text: of project `key` those still there (`present` ids), of others
        all.

        A project lost with its server keeps its labels here.
        """
        latest = {(r["project"], r["annotation_id"]): r for r in sorted(self._lines(), key=lambda r: r["updated_at"])}
        there = [r for k, r in latest.items() if k[0] != key or k[1] in present]
        there.sort(key=lambda r: (r["updated_at"], r["annotation_id"]))
        last = {(r["project"], r["annotator"], r["uid"]): r for r in there}
        return sorted(last.values(), key=lambda r: (r["project"], r["annotation_id"]))

    def _lines(self) -> list[dict[str, Any]]:
        """Every whole line; a last line torn by a crash is left out (the server still has it)."""
        if not self.path.exists():
            return []
        whole = []
        with self.path.open(encoding="utf-8", newline="\n") as lines:  # not splitlines: comments may hold U+2028
            for line in lines:
                try:
                    whole.append(json.loads(line))
                except json.JSONDecodeError:
                    continue
        return whole

    def _end_torn_line(self) -> None:
        if self.path.exists() and (data := self.path.read_bytes()) and not data.endswith(b"\n"):
            with self.path.open("ab") as out:
                out.write(b"\n")
