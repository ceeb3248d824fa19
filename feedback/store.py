"""What came from Label Studio, append-only: labels keep arriving and minds change, and nothing is overwritten."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trueup.artifacts import write_json
from trueup.feedback.annotations import Annotation


class Store:
    """`runs/<name>/store/`: the project's id, and one line for each version of each annotation ever seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "annotations.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def project(self, url: str) -> int | None:
        """The project made earlier on this server; found by id, since titles repeat."""
        return self._projects().get(url)

    def remember_project(self, url: str, project: int) -> None:
        write_json(self.folder / "projects.json", self._projects() | {url: project})

    def _projects(self) -> dict[str, int]:
        path = self.folder / "projects.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def append(self, annotations: list[Annotation]) -> int:
        """Add versions not seen before; return how many. On disk (fsync) when this returns."""
        seen = {(row["annotation_id"], row["updated_at"]) for row in self._lines()}
        new = [a for a in annotations if (a.annotation_id, a.updated_at) not in seen]
        self._end_torn_line()
        with self.path.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(asdict(a), ensure_ascii=False) + "\n" for a in new)
            out.flush()
            os.fsync(out.fileno())
        return len(new)

    def current(self, present: set[int]) -> list[dict[str, Any]]:
        """The last version of each annotation that is still on the server (`present` ids), by id."""
        latest = {row["annotation_id"]: row for row in sorted(self._lines(), key=lambda row: row["updated_at"])}
        return [latest[number] for number in sorted(latest) if number in present]

    def _lines(self) -> list[dict[str, Any]]:
        """Every whole line; a last line torn by a crash is left out (the server still has it)."""
        if not self.path.exists():
            return []
        whole = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                whole.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return whole

    def _end_torn_line(self) -> None:
        if self.path.exists() and (data := self.path.read_bytes()) and not data.endswith(b"\n"):
            with self.path.open("ab") as out:
                out.write(b"\n")
