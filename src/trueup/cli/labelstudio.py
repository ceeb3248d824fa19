"""`trueup labelstudio start`, `stop` and `status`: the server that trueup runs for you."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from trueup.cli.document import tell, with_json
from trueup.errors import PortTakenError, ServerError

DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), default="labelstudio", show_default=True)
PORT = click.option("--port", type=click.IntRange(1024, 65535), default=8090, show_default=True)


@click.group()
def labelstudio() -> None:
    """Start, stop and find the Label Studio that trueup runs."""


@labelstudio.command()
@DATA_DIR
@PORT
@click.option(
    "--host",
    help="The address that it listens on: 0.0.0.0 for other machines too. By default as last time; at first, this "
    "machine alone.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="How people reach it, if not at http://HOST:PORT: https://labels.example.org of a TLS proxy before it. It is "
    "what they are told.",
)
@click.option(
    "--database",
    metavar="URL",
    help="Keep its data in PostgreSQL, at postgresql://USER@HOST:PORT/NAME, and not in a file in its folder. The "
    "password comes from PGPASSWORD or ~/.pgpass.",
)
@with_json
def start(data_dir: Path, port: int, host: str | None, public_url: str | None, database: str | None) -> None:
    """Start it, or find it running. What was chosen is kept for the next start."""
    from trueup.feedback import server
    from trueup.progress import spinner

    try:
        with spinner("starting Label Studio") as say:
            server.start(data_dir.resolve(), port, say, host=host, public_url=public_url, database_url=database)
    except PortTakenError as error:
        another = port + 1 if port < 65535 else port - 1
        again = f"trueup labelstudio start --port {another}{_chosen(data_dir)}"
        raise ServerError(error.where, found=error.found, next_step=again) from None
    _say_login(data_dir)


@labelstudio.command()
@DATA_DIR
@with_json
def stop(data_dir: Path) -> None:
    """Stop it; the data stays."""
    from trueup.feedback import server

    ran = server.stop(data_dir.resolve())
    click.echo("stopped" if ran else "it was not running")
    tell(running=False, was_running=ran)


@labelstudio.command()
@DATA_DIR
@with_json
def status(data_dir: Path) -> None:
    """Is it running, and where."""
    from trueup.feedback import server

    if server.is_running(data_dir.resolve()):
        _say_login(data_dir)
    else:
        tell(running=False)
        click.echo(f"not running; start it with: trueup labelstudio start{_chosen(data_dir)}")


def _chosen(data_dir: Path) -> str:
    return "" if data_dir == Path("labelstudio") else f" --data-dir {shlex.quote(str(data_dir))}"


def _say_login(data_dir: Path) -> None:
    from trueup.feedback import reach, server
    from trueup.feedback.connection import credentials

    folder = data_dir.resolve()
    known, address, data = server.login(folder), reach.address_of(folder), credentials(folder).get("database")
    tell(running=True, url=known["url"], email=known["email"], credentials=str(data_dir / "credentials.json"))
    tell(address=address, database=data)
    if reach.is_reached_by_others(folder):
        warning = "" if address.startswith("https:") else ", unencrypted: only in a network that you trust"
        click.echo(f"people elsewhere reach it at {address}{warning}")
    if data:
        click.echo(f"its data are in {data}")
    click.echo(f"running at {known['url']}\nlog in as {known['email']}, password in {data_dir / 'credentials.json'}")
