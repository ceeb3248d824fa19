"""`trueup export --push owner/name`: what was exported, onto a hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from trueup.errors import ConfigError

OPTIONS = (
    click.Option(["--push"], metavar="OWNER/NAME", help="Upload to a hub as a private repository; needs HF_TOKEN."),
    click.Option(["--push-dry-run"], is_flag=True, help="List what --push would upload, and upload nothing."),
    click.Option(["--push-public"], is_flag=True, help="Let --push make a public repository."),
)


def add_to(export: click.Command, open_run: Callable[[Path, tuple[str, ...]], Any]) -> None:
    """Give the command of the export stage the options of pushing. What can be refused is refused before it builds."""
    build: Callable[..., None] | None = export.callback

    def command(push: str | None, push_dry_run: bool, push_public: bool, **values: Any) -> None:
        if push is None and (push_dry_run or push_public):
            flag = "--push-dry-run" if push_dry_run else "--push-public"
            raise ConfigError(flag, found="no --push beside it", expected="--push owner/name", next_step="add --push")
        from trueup.export import publish
        from trueup.export import push as pushing

        pipeline = open_run(values["run_file"], values["overrides"])
        if push is not None and not push_dry_run:
            pushing.check(push, pipeline.run.section("export").forms, private=not push_public)
        if build is not None:
            build(**values)
        if push is None:
            return
        from trueup.run.artifacts import records

        history = [record for record in records(pipeline.folder) if record["stage"] != "export"]
        with publish.staged(pipeline.path("export"), pipeline.run, history, push) as parcels:
            for line in pushing.lines(parcels):
                click.echo(line)
            for address in [] if push_dry_run else pushing.send(parcels, private=not push_public):
                click.echo(f"pushed: {address}")

    export.callback = command
    export.params += OPTIONS
