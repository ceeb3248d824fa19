"""What came from Label Studio, append-only: labels keep arriving and minds change, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback.annotations import UNKNOWN
from trueup.feedback.judgement import Judgement, from_row, to_row
from trueup.run.address import canonical
from trueup.run.artifacts import write_json
from trueup.run.files import read_json

Version = tuple[Judgement, ...]  # what one version of an annotation says: a line for each judgement
Said = tuple[str, Judgement]  # the key of the project in which it was said, and what was said


class Store:
    """`runs/<name>/store/`: the projects' ids, and a line for each judgement in each version of each annotation seen.

    `interface` names the screen: each has a project of its own, and all have their judgements in one file.
    """

    def __init__(self, folder: Path, interface: str = "thumbs") -> None:
        self.folder, self.path = folder, folder / "annotations.jsonl"
        self._projects_path = folder / ("projects.json" if interface == "thumbs" else f"projects-{interface}.json")
        folder.mkdir(parents=True, exist_ok=True)
        self._kept: dict[tuple[str, int | None], Version] = {}
        self._broken: list[int] = []
        self._read_at: tuple[int, int, int] | None = None

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

    def asked(self) -> dict[str, Any]:
        """{overlap, right, repeated} of what was asked so far, as `asking.Asked.drawn` gives it; empty before that."""
        found = read_json(self.folder / "asked.json") or {}
        kinds = {"overlap": list, "right": dict, "repeated": dict}
        return {name: found[name] for name, kind in kinds.items() if isinstance(found.get(name), kind)}

    def remember_asked(self, drawn: dict[str, Any]) -> None:
        """Note what is asked now, and keep what earlier gold questions and repetitions were."""
        before = self.asked()
        if drawn["overlap"] or drawn["right"] or drawn["repeated"] or before:
            kept = {name: before.get(name, {}) | drawn[name] for name in ("right", "repeated")}
            write_json(self.folder / "asked.json", drawn | kept)

    def append(self, judgements: Iterable[Judgement], key: str) -> int:
        """Add the annotations that are not as last seen; return their judgements. On disk (fsync) when this returns."""
        last = self._versions()
        seen = sorted(judgements, key=lambda one: (one.updated_at, one.annotation_id))
        new: list[Judgement] = []
        for number, group in groupby(seen, key=lambda one: one.annotation_id):
            version, before = tuple(group), last.get((key, number))
            if before and version[0].annotator.startswith(UNKNOWN):  # an account deleted since: who it was stays known
                version = tuple(replace(one, annotator=before[0].annotator) for one in version)
            if before != version:
                new += version
        self._cut_torn_line()
        with self.path.open("a", encoding="utf-8") as out:
            for one in new:
                out.write(json.dumps({"project": key} | to_row(one), ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        return len(new)

    def current(self, present: set[int], key: str, hidden: Set[str] = frozenset()) -> list[Said]:
        """The judgements in the last version of each annotation: of project `key` if it is `present`, of others all.

        A project lost with its server keeps its labels here, and so do the completions `hidden` (uids), which the
        server cannot show. They come in the order in which their last versions were seen, which no clock that was
        put back can change.
        """
        return [(project, one) for project, one in self._latest() if _counts(project, one, present, key, hidden)]

    def num_gone(self, present: set[int], key: str, hidden: Set[str] = frozenset()) -> int:
        """How many annotations were seen earlier and are no longer on the server."""
        versions = self._versions().items()
        return sum(not _counts(project, version[0], present, key, hidden) for (project, _), version in versions)

    def latest(self) -> list[dict[str, Any]]:
        """The lines of the last version of each annotation ever seen, of what was deleted since too."""
        return [to_line(said) for said in self._latest()]

    def _latest(self) -> Iterator[Said]:
        for (project, _), version in self._versions().items():
            yield from ((project, one) for one in version)

    def _versions(self) -> dict[tuple[str, int | None], Version]:
        """The last version of each annotation, in the order in which these were seen.

        A line begins a new version where its moment is another, or where the version has its kind of judgement already.
        The file is read again only where it changed, and kept as judgements, which take less than their lines.
        """
        now = self._stamp()
        if now is None or now != self._read_at:
            latest: dict[tuple[str, int | None], Version] = {}
            self._broken = []
            for number, line in enumerate(self._whole_lines(), start=1):
                if not (found := _said_in(line)):
                    self._broken.append(number)
                for project, one in found:
                    name = (project, one.annotation_id)
                    version = latest.pop(name, ())
                    if any(other.kind == one.kind or other.updated_at != one.updated_at for other in version):
                        version = ()
                    latest[name] = (*version, one)
            self._kept, self._read_at = latest, now
        return self._kept

    def _stamp(self) -> tuple[int, int, int] | None:
        """By which a change of the file is told; None where there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def broken(self) -> list[str]:
        """Each line that cannot be read, by its number; a last line torn by a crash is none: the server has it."""
        self._versions()
        return [f"{self.path.name}:{number}" for number in self._broken]

    def _whole_lines(self) -> Iterator[bytes]:
        if self.path.exists():
            with self.path.open("rb") as stream:
                yield from (line[:-1] for line in stream if line.endswith(b"\n"))

    def _cut_torn_line(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        if not data.endswith(b"\n"):
            with self.path.open("ab") as out:
                out.truncate(data.rfind(b"\n") + 1)


def _is_project(known: Any) -> bool:
    return isinstance(known, dict) and isinstance(known.get("id"), int | None) and isinstance(known.get("key"), str)


def _counts(project: str, one: Judgement, present: set[int], key: str, hidden: Set[str]) -> bool:
    return project != key or one.annotation_id in present or one.uid in hidden


def to_line(said: Said) -> dict[str, Any]:
    """What was said as a line of the store, and of a snapshot."""
    return {"project": said[0]} | to_row(said[1])


def _said_in(line: bytes) -> list[Said]:
    """The judgements of one line; a line of an earlier version may hold two; none of one that cannot be read."""
    try:
        row = json.loads(line)
        found = from_row(row)
    except (ValueError, RecursionError):  # a byte that is no UTF-8 is a ValueError too
        return []
    project = row.get("project")
    if not isinstance(project, str) or any(one.annotation_id is None for one in found):
        return []
    return [(sys.intern(project), one) for one in found]
