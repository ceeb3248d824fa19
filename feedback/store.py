"""What came from Label Studio, append-only: labels keep arriving and minds change, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback.annotations import UNKNOWN
from trueup.feedback.judgement import Judgement, from_row, to_row
from trueup.feedback.published import Published
from trueup.run.artifacts import write_json
from trueup.run.files import read_json

Version = tuple[Judgement, ...]  # what one version of an annotation says: a line for each judgement
Said = tuple[str, Judgement]  # the key of the project in which it was said, and what was said


class Store(Published):
    """`runs/<name>/store/`: the projects' ids, and a line for each judgement in each version of each annotation seen.

    `interface` names the screen: each has a project of its own, and all have their judgements in one file.
    """

    def __init__(self, folder: Path, interface: str = "thumbs") -> None:
        super().__init__(folder, interface)
        self.path = folder / "annotations.jsonl"
        self._kept: dict[tuple[str, int | None], Version] = {}
        self._broken: list[int] = []
        self._read_at: tuple[int, int, int] | None = None

    def asked(self) -> dict[str, Any]:
        """{overlap, right, repeated} of what was asked so far, as `asking.Asked.drawn` gives it; empty before that.

        Raises FeedbackError where that cannot be read: gold questions and repetitions could not be told from others.
        """
        path = self.folder / "asked.json"
        if not path.exists():
            return {}
        found, kinds = read_json(path), {"overlap": list, "right": dict, "repeated": dict}
        if isinstance(found, dict) and all(isinstance(found.get(name, kind()), kind) for name, kind in kinds.items()):
            return {name: found[name] for name in kinds if name in found}
        raise FeedbackError(
            str(path),
            found="not what trueup wrote there",
            expected="which questions are gold, repeated, or asked of several people",
            next_step="restore it from a copy; or remove it: what several people are asked is then drawn anew, and "
            "earlier gold questions are not known",
        )

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
        for one in new:
            _take((key, one), last)
        self._kept, self._read_at = last, self._stamp()
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

        The file is read again only where it changed, and kept as judgements, which take less than their lines.
        """
        now = self._stamp()
        if now is None or now != self._read_at:
            latest: dict[tuple[str, int | None], Version] = {}
            self._broken = []
            for number, line in enumerate(self._whole_lines(), start=1):
                if not (found := _said_in(line)):
                    self._broken.append(number)
                for said in found:
                    _take(said, latest)
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


def _take(said: Said, latest: dict[tuple[str, int | None], Version]) -> None:
    """Take the next line into the last versions.

    It begins a new version where its moment is another, or where the version has its kind of judgement already.
    """
    project, one = said
    name = (project, one.annotation_id)
    version = latest.pop(name, ())
    if any(other.kind == one.kind or other.updated_at != one.updated_at for other in version):
        version = ()
    latest[name] = (*version, one)


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
