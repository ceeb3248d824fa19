"""From a complete export to a hub: each form with a card that names its repository, beside the export as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trueup.errors import StageError
from trueup.export import card, push
from trueup.export.push import Parcel
from trueup.export.receipt import NAME, Receipt
from trueup.run.stage import Context

STAGED = "export.push"  # beside the export: the same files, with other cards


@contextmanager
def staged(context: Context, records: Sequence[dict[str, Any]], name: str) -> Iterator[list[Parcel]]:
    """What would go to the hub as `name`, for as long as the block lasts. The export, `context.out`, is not touched.

    `records` are those of the stages that the exported weights come from, in order.

    Files are links where the file system has them, so that no weights are copied. Raises HubError for names that a hub
    refuses, StageError for an export that an earlier version wrote.
    """
    export = context.out
    forms = [form for form in push.SUFFIXES if (export / form).is_dir()]
    repositories = push.repositories(name, forms)
    if not (export / NAME).exists():
        raise StageError(
            str(export),
            found="this export was made by an earlier version, whose files are not meant for others",
            expected=f"an export with a {NAME}",
            next_step="trueup export RUN.yaml --rebuild",
        )
    receipt = Receipt.model_validate_json((export / NAME).read_text(encoding="utf-8"))
    copy = export.with_name(STAGED)
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(export, copy, ignore=shutil.ignore_patterns("record.json"), copy_function=_linked)
        card.write(copy, receipt, context.run, records, repositories)
        yield push.parcels(copy, name, forms)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    """A link where it is possible; a copy of a card, which is written anew."""
    if Path(source).name == "README.md":
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
