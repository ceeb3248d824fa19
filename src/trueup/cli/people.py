"""`trueup people add`, `list` and `remove`: who may label on the server that trueup runs."""

from __future__ import annotations

import getpass
import shlex
import socket
from pathlib import Path
from urllib.parse import urlsplit

import click

from trueup.cli.document import tell, with_json
from trueup.cli.labelstudio import DATA_DIR


@click.group()
def people() -> None:
    """Give people logins to Label Studio, and end them."""


@people.command()
@click.argument("name")
@click.option(
    "--name-in-records", is_flag=True, help="This person agrees that records show the name, not the id alone."
)
@DATA_DIR
@with_json
def add(name: str, name_in_records: bool, data_dir: Path) -> None:
    """Make a login for NAME, and print what to send to that person."""
    from trueup.feedback import people as logins
    from trueup.feedback import reach

    folder = data_dir.resolve()
    person = logins.add(folder, name, named=name_in_records)
    address, kept = reach.address_of(folder), data_dir / logins.FILE
    tell(id=person.id, name=person.name, email=person.email, address=address, password_in=str(kept))
    click.echo(f"{person.name} can log in now. Send this:\n")
    if not reach.is_reached_by_others(folder):
        port = urlsplit(address).port
        click.echo(
            f"  on your machine, run:  ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.gethostname()}"
        )
    click.echo(f"  address:   {address}\n  e-mail:    {person.email}   (a login; no mail is sent there)")
    click.echo(f"  password:  {person.password}\n\nthe password is also in {kept}")
    if not reach.is_reached_by_others(folder):
        again = f"trueup labelstudio start --host {reach.EVERYWHERE}"
        click.echo(
            "Label Studio listens on this machine alone, so others need the ssh command; a person at this machine does "
            f"not. Without ssh: trueup labelstudio stop, then {again}"
        )


@people.command("list")
@DATA_DIR
@with_json
def show(data_dir: Path) -> None:
    """List everybody who was added."""
    from trueup.feedback import people as logins

    found = logins.everybody(data_dir.resolve())
    tell(people=[{"id": p.id, "name": p.name, "email": p.email, "removed": p.removed, "named": p.named} for p in found])
    if not found:
        click.echo("nobody was added yet: trueup people add NAME")
    for person in found:
        notes = ["removed"] * person.removed + ["name in records"] * person.named
        click.echo(
            "  ".join([f"{person.id:>4}", person.email, person.name, *([f"({', '.join(notes)})"] if notes else [])])
        )


@people.command()
@click.argument("who")
@DATA_DIR
@with_json
def remove(who: str, data_dir: Path) -> None:
    """End the login of WHO: a name, an e-mail or an id.

    What this person judged stays, and counts.
    """
    from trueup.feedback import people as logins

    person = logins.remove(data_dir.resolve(), who)
    tell(id=person.id, email=person.email, removed=True)
    chosen = "" if data_dir == Path("labelstudio") else f" --data-dir {shlex.quote(str(data_dir))}"
    click.echo(f"{person.email} can no longer log in; earlier judgements stay (everybody: trueup people list{chosen})")
