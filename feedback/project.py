"""The run's project: found or made at the first call, watched until people have judged enough, compared afterwards."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trueup.feedback import people, reach, server
from trueup.feedback.annotations import parse
from trueup.feedback.client import Client
from trueup.feedback.connection import connect, is_ours
from trueup.feedback.faults import RequestError
from trueup.feedback.giving import Giving
from trueup.feedback.judgement import from_row
from trueup.feedback.qualification import Qualification
from trueup.feedback.screens import screen
from trueup.feedback.standing import Standing, standing
from trueup.feedback.store import Store
from trueup.feedback.watch import Watch
from trueup.progress import bars, spinner
from trueup.run.artifacts import write_json
from trueup.run.run_file import LabelStudioConfig
from trueup.run.stage import Waiting

OURS = "our own server"  # whose port may change
PATIENCE_S = 3600  # how long a run that waits bears a server that is away
LONGEST_PAUSE_S = 60.0
SPEED_OF_LAST_S = 3600  # by which time left is told: people pause

Answer = TypeVar("Answer")


class Project:
    """A run's project on a server, and the store of what was said there. Each interface has a project of its own."""

    def __init__(
        self, settings: LabelStudioConfig, folder: Path, interface: str = "thumbs", *, adjudicates: bool = False
    ) -> None:
        """Connect to the server, which is not started here. Raises ServerError without an address or a token.

        One that `adjudicates` is a second project of the run's, for what people dispute in the first.
        """
        connection = connect(settings.data_dir, settings.url)
        self.settings, self.interface, self._alone = settings, interface, adjudicates
        self.notes: list[str] = []
        name = f"{interface}-adjudication" if adjudicates else interface
        self.store, self.client = Store(folder, name), Client(connection)
        self._server = OURS if settings.url is None else connection.url
        ours = is_ours(settings.data_dir, connection.url)  # an address written out may be our own server's
        self._data_dir = settings.data_dir if ours else None
        self.known = self.store.project(self._server) or (self.store.project(OURS) if ours else None)

    def make(self, name: str, annotations_per_task: int, guidelines: str = "") -> tuple[int, str]:
        """(id, key) of the project, which asks so many people for each task; made when there is none yet.

        Guidelines that changed are shown from now on, unless somebody else changed the screen meanwhile.
        """
        wanted = screen(self.interface, guidelines)
        if self.known is None:
            key = self.store.begin_project(self._server)
            found = self.client.find_project(key)
            for other in self.store.other_keys(key) if found is None else ():  # this server under another address
                if (found := self.client.find_project(other)) is not None:
                    key = other
                    break
            if found is None:
                found = self.client.create_project(name, wanted, key=key, annotations_per_task=annotations_per_task)
                self.store.remember_project(self._server, found, key)
                self.store.remember_screen(self._server, _digest(wanted))
            self.known = self.store.remember_project(self._server, found, key)
        self.client.ask_for(self.known[0], annotations_per_task)
        self._show(wanted)
        return self.known

    def _show(self, wanted: str) -> None:
        """Have the project show this screen, where what it shows is what we last put there."""
        ours = self.store.screen(self._server)
        if self.known is None or ours == _digest(wanted):
            return
        if ours is None:
            if wanted != screen(self.interface) and _digest(self.client.screen(self.known[0])) != _digest(wanted):
                self.notes = ["an earlier version made this project: its screen shows no guidelines, and is left alone"]
            return
        changed = _digest(self.client.screen(self.known[0])) != ours
        if not changed:
            try:
                self.client.show(self.known[0], wanted)
            except RequestError as error:  # tasks or labels are there that do not fit it
                if error.status != 400:
                    raise
                self.notes = [f"Label Studio does not take the screen with the present guidelines: {error.found}"]
            else:
                self.store.remember_screen(self._server, _digest(wanted))
        else:
            self.notes = ["the screen was changed in Label Studio and is left alone: it may show other guidelines"]

    def labels(
        self,
        known: tuple[int, str],
        asked: Sequence[str],
        *,
        each: int | Mapping[str, int],
        wanted: int,
        given: Mapping[str, int] | None = None,
        qualification: Qualification | None = None,
    ) -> Standing:
        """Where people stand when `wanted` of the completions `asked` (uids) have `each` verdicts; `known` from `make`.

        `each` may be another number for each uid. Tasks that nobody waits for are `given` to so many people, by uid.
        Raises Waiting before enough is judged, unless the settings say to wait and people are still given enough.
        """
        number, key = known
        address = f"{self.client.url}/projects/{number}/data?labeling=1"
        if self.settings.url is None:
            address = address.replace(self.client.url, reach.address_of(self.settings.data_dir), 1)
            address += f" (login: trueup labelstudio status --data-dir {self.settings.data_dir})"
        watch, whole = Watch(self.client, number, self.interface), True
        wants = dict(each if isinstance(each, Mapping) else dict.fromkeys(asked, each))
        giving = Giving(self.client, number, wants | dict(given or {}))
        with bars("collect", speed_of_last_s=SPEED_OF_LAST_S) as bar:
            task = bar.add_task("judgements", total=wanted)
            while True:
                found = self._patiently(functools.partial(watch.look, whole=whole))
                now = standing(
                    found,
                    asked,
                    self.store,
                    key,
                    each=each,
                    wanted=wanted,
                    interface=self.interface,
                    people=self.people(),
                    alone=self._alone,
                    qualification=qualification,
                )
                self._patiently(functools.partial(giving.keep, found, now.missing))
                notes = [*self.notes, *self._unguarded(), *now.notes(address, len(asked))]
                self.note_progress(now, notes)
                bar.update(task, completed=min(now.labelled, wanted))
                if now.done and whole:
                    return now
                if not now.done and (now.stuck or not self.settings.wait):
                    raise Waiting(now.labelled, wanted, address, notes)
                if not now.done:
                    time.sleep(self.settings.poll_s)
                whole = now.done  # before freezing: a deleted task shows only in a whole pull

    def people(self) -> list[people.Person]:
        """Who was given a login on our own server; nobody is known of another one."""
        return people.everybody(self._data_dir) if self._data_dir else []

    def _unguarded(self) -> list[str]:
        """What to say of our own server where people have logins that open more than they should."""
        if self._data_dir is None or not any(not person.removed for person in self.people()):
            return []
        if server.is_guarded(self._data_dir):
            return []
        return [
            "an earlier version of trueup started this server, and a login on it can open more than judging: "
            + server.restart(self._data_dir)
        ]

    def note_progress(self, now: Standing, notes: list[str]) -> None:
        """What `trueup status` says while collect waits."""
        write_json(
            self.store.folder / "progress.json", {"labelled": now.labelled, "wanted": now.wanted, "notes": notes}
        )

    def changes(self, asked: Iterable[str], frozen: Iterable[dict[str, Any]]) -> str:
        """What people changed about the completions `asked` since the rows `frozen`, in words; empty when nothing."""
        if self.known is None:
            return ""
        number, key = self.known
        uids = set(asked)
        before: dict[int | None, set[tuple[str, Any]]] = {}
        for row in frozen:
            if row.get("project") == key and row["uid"] in uids:
                for one in from_row(row):
                    before.setdefault(one.annotation_id, set()).add((one.kind, one.verdict))
        after: dict[int | None, set[tuple[str, Any]]] = {}
        for task in (task for page in self.client.pages(number) for task in page):
            for one in parse(task, self.interface)[0]:
                if one.uid in uids:
                    after.setdefault(one.annotation_id, set()).add((one.kind, one.verdict))
        counts = {
            "new": len(after.keys() - before.keys()),
            "changed": sum(after[one] != before[one] for one in after.keys() & before.keys()),
            "deleted": len(before.keys() - after.keys()),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns; where the settings say to wait, a server that is away is asked again and again."""
        began, pause = time.monotonic(), self.settings.poll_s
        while True:
            try:
                return ask()
            except RequestError as error:
                if not (self.settings.wait and error.passing) or time.monotonic() - began > PATIENCE_S:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()  # the server may change white space


def open_project(settings: LabelStudioConfig, folder: Path, interface: str = "thumbs") -> Project:
    """The run's project; starts our own server when no other is named."""
    if settings.url is None:
        with spinner("starting Label Studio") as say:
            server.start(settings.data_dir, settings.port, say)
    return Project(settings, folder, interface)
