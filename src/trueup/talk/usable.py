"""Whether an adapter that is complete can be used on the run file's base, and is still the one that was found."""

from __future__ import annotations

from pathlib import Path

from trueup.errors import ModelError, StageError
from trueup.run.artifacts import Artifact
from trueup.run.changes import base_changes
from trueup.run.identity import base_made_of
from trueup.run.pipeline import Pipeline
from trueup.run.standing import Standing


def fault(pipeline: Pipeline, standing: Standing, artifact: Artifact) -> str | None:
    """Why an adapter, of a model or of the reward model, cannot be used on the run file's base; None where it can."""
    run = pipeline.run
    try:
        record = artifact.record()
        if altered := artifact.altered(standing.hashes.of):
            return "; ".join(altered)
    except StageError as error:
        return f"{error.where}: {error.found}"
    then, now = record.get("base") or {}, base_made_of(run, pipeline.run_file_dir, standing.hashes)
    if then and (changed := base_changes(then, now, pipeline.run_file_dir)):
        return f"it was trained on another base: {'; '.join(changed)}"
    kind = (record.get("adapter") or {}).get("kind", run.adapter.kind)
    if (kind == "lora") != (run.adapter.kind == "lora"):
        return f"it was trained on the base in {_bits(kind)}, and adapter.kind is now {run.adapter.kind}"
    return None


def refuse_another(name: str, folder: Path, fingerprint: str) -> None:
    """Raises ModelError where an adapter is no longer the one of that `fingerprint`, found when the command started."""
    if (now := Artifact(folder).record().get("fingerprint", "")) != fingerprint:
        raise ModelError(
            name,
            found=f"it was built again, and is {str(now)[:12]} now",
            expected=f"{fingerprint[:12]}, as when this command started",
            next_step="start the command again",
        )


def _bits(kind: str) -> str:
    return "16 bits" if kind == "lora" else "4 bits"
