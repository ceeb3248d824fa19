"""People with a login on the server that trueup runs: who they are, in a file that its owner alone can read."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shlex
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trueup.errors import ServerError
from trueup.feedback import database, server, signup
from trueup.feedback.connection import connect

FILE = "people.json"
DOMAIN = "trueup.local"  # of the e-mail addresses: logins, to which no mail is sent
LONGEST_NAME = 100  # characters


@dataclass(frozen=True)
class Person:
    """Somebody with a login. Judgements bear the `id` of the account; `named` is whether records may tell the name."""

    id: int
    name: str
    email: str
    password: str = field(repr=False)  # empty once removed
    named: bool = False
    removed: bool = False

    @property
    def label(self) -> str:
        """What messages and records call this person."""
        return f"{self.name} ({self.id})" if self.named else f"person {self.id}"


def everybody(data_dir: Path) -> list[Person]:
    """All who were ever added, in that order. Raises ServerError when the file cannot be read."""
    path = data_dir / FILE
    try:
        known = json.loads(path.read_bytes())["people"]
        if not isinstance(known, list):
            raise TypeError
        return [_person(one) for one in known]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ServerError(
            str(path),
            found="no list of people that can be read",
            expected="what trueup people add wrote",
            next_step="restore it from a copy; or move it aside: the accounts and their judgements stay",
        ) from None


def _person(known: Any) -> Person:
    """A person as the file has one. Raises TypeError on anything else."""
    kinds = {"id": int, "name": str, "email": str, "password": str, "named": bool, "removed": bool}
    if not isinstance(known, dict) or not all(
        type(known[name]) is kind for name, kind in kinds.items() if name in known
    ):
        raise TypeError
    return Person(**known)


def add(data_dir: Path, name: str, *, named: bool = False) -> Person:
    """Make a login for `name`. Raises ServerError when the server does not run or refuses."""
    name = " ".join(name.split())
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise ServerError(
            "the name",
            found=repr(name[:LONGEST_NAME]),
            expected=f"1 to {LONGEST_NAME} characters that can be printed",
            next_step="trueup people add NAME",
        )
    if not server.is_running(data_dir):
        again = f"trueup labelstudio start --data-dir {shlex.quote(str(data_dir))}"
        raise ServerError(str(data_dir), found="Label Studio is not running", next_step=again)
    if not server.is_guarded(data_dir):
        raise ServerError(
            str(data_dir),
            found="an earlier version of trueup started this server: a login on it can open more than judging, such as "
            "settings and other people's judgements",
            expected="a server that this version started",
            next_step=f"{server.restart(data_dir)}: nothing is lost",
        )
    admin = connect(data_dir)
    with _changing(data_dir) as people:
        password, number = secrets.token_urlsafe(12), 1
        while True:
            email = f"{_slug(name)}{f'-{number}' if number > 1 else ''}@{DOMAIN}"
            taken = any(person.email == email for person in people)
            account = None if taken else signup.sign_up(admin, email, password, name)
            if account is not None:
                break
            number += 1
        person = Person(id=account.id, name=name, email=email, password=password, named=named)
        people.append(person)
    return person


def remove(data_dir: Path, who: str) -> Person:
    """End the login of the person whose id, e-mail or name is `who`; what this person judged stays.

    Raises ServerError when there is no such person, or several of that name.
    """
    with _changing(data_dir) as people:
        found = [n for n, one in enumerate(people) if not one.removed and one.email == who]
        found = found or [n for n, one in enumerate(people) if not one.removed and who in (str(one.id), one.name)]
        if len(found) != 1:
            several = ", ".join(people[n].email for n in found)
            raise ServerError(
                f"trueup people remove {who}",
                found=f"{len(found)} people of this name or id: {several}"
                if found
                else "nobody with this name, e-mail or id",
                expected="one person who has a login",
                next_step="trueup people list, then name the e-mail or the id",
            )
        person = people[found[0]]
        _lock_out(data_dir, person)
        people[found[0]] = replace(person, removed=True, password="")
    return people[found[0]]


def _lock_out(data_dir: Path, person: Person) -> None:
    """Have every login, session and token of the account refused, and give back the task it has open.

    Label Studio has no request for this: one that was removed from its organization can still log in, and deleting the
    account takes its id off its judgements.
    """
    give_back = ("DELETE FROM tasks_tasklock WHERE user_id = %s", (person.id,))
    refuse = ("UPDATE htx_user SET is_active = %s WHERE id = %s AND email = %s", (False, person.id, person.email))
    database.execute(data_dir, [give_back, refuse])


@contextmanager
def _changing(data_dir: Path) -> Iterator[list[Person]]:
    """The list of people, which is written back at the end; one process at a time."""
    if not data_dir.is_dir():
        raise ServerError(str(data_dir), found="no such folder", next_step="look whether --data-dir is the right one")
    with os.fdopen(os.open(data_dir / f"{FILE}.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        people = everybody(data_dir)
        yield people
        path, aside = data_dir / FILE, data_dir / f"{FILE}.tmp"
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            json.dump({"people": [asdict(person) for person in people]}, out, ensure_ascii=False, indent=2)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)


def _slug(name: str) -> str:
    """The name in an e-mail address: letters and digits without accents; of a name with none, `person`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", ".", plain).strip(".")[:40].strip(".") or "person"
