"""What people said or changed since a snapshot was frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.errors import TrueupError
from trueup.feedback import freezing, server, use
from trueup.feedback.project import Project
from trueup.feedback.questions import questions
from trueup.run.artifacts import Completions, Feedback, read_jsonl
from trueup.run.stage import Context


def since(interface: str, context: Context, made: Feedback, completions: Completions | None) -> str:
    """What is newer than the snapshot `made`, in use and in Label Studio, in sentences; empty when nothing."""
    in_use = use.since(use.Use(context.run_dir / "store"), made.record().get("metrics", {}))
    return "; ".join(filter(None, [in_use, _in_label_studio(interface, context, made, completions)]))


def _in_label_studio(interface: str, context: Context, made: Feedback, completions: Completions | None) -> str:
    settings = context.run.labelstudio
    if completions is None:
        return ""
    if settings.url is None and not server.is_running(settings.data_dir):
        return "Label Studio is not running, and so was not asked for newer verdicts"
    try:
        asked = questions(completions.rows(), interface, context.run.seed).uids
        frozen = [row for name in ("annotations.jsonl", freezing.CHECKS) for row in _lines(made.path / name)]
        store = context.run_dir / "store"
        if settings.url is not None and Project(settings, store, interface).known is None:
            if any(row.get("annotation_id") is not None for row in frozen):
                return f"{settings.url} was not asked for newer verdicts: nothing was published at this address"
            return ""
        changes = ", of disputes ".join(
            found
            for adjudicates in (False, True)
            if (found := Project(settings, store, interface, adjudicates=adjudicates).changes(asked, frozen))
        )
    except TrueupError as error:
        return f"Label Studio could not be asked for newer verdicts: {error.found}"
    return f"Label Studio holds newer verdicts ({changes}); to take them: --refresh" if changes else ""


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path)) if path.exists() else []
