"""Checkpoints that can be trusted: a manifest of hashes is written last, and a torn checkpoint is skipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trueup import ranks
from trueup.run.files import file_sha256, read_json, sync, sync_tree, write_json

MANIFEST = "trueup-manifest.json"


def seal(checkpoint: Path) -> None:
    """Write the hashes of every file in the checkpoint, last, when the files are on disk; the seal is, too, then."""
    sync_tree(checkpoint)
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_json(checkpoint / MANIFEST, {str(p.relative_to(checkpoint)): file_sha256(p) for p in files})
    sync(checkpoint.parent)


def is_whole(checkpoint: Path) -> bool:
    """True when the manifest is there and every file has the hash it names."""
    manifest = read_json(checkpoint / MANIFEST)
    if not manifest:
        return False
    files = {checkpoint / name: digest for name, digest in manifest.items()}
    return all(file.is_file() and file_sha256(file) == digest for file, digest in files.items())


def latest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`; newer ones that are torn are deleted."""
    found = sorted(folder.glob("checkpoint-*[0-9]"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        if is_whole(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path | None) -> int:
    """The optimizer step a checkpoint was written at; 0 for none."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def is_last(checkpoint: Path) -> bool:
    """True when a trainer of transformers wrote it after the last of all steps."""
    state = read_json(checkpoint / "trainer_state.json") or {}
    return bool(0 < state.get("max_steps", 0) <= state.get("global_step", 0))


def within_epochs(save_steps: int) -> Any:
    """A transformers callback that saves every `save_steps` steps besides the checkpoints by epoch.

    Not at an epoch's last step, whose checkpoint is written after its evaluation: a run that resumed from one before
    would never evaluate that epoch.
    """
    from transformers import TrainerCallback

    class WithinEpochs(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            epoch_ends = state.epoch == int(state.epoch) or state.global_step == state.max_steps
            if state.global_step % save_steps == 0 and not epoch_ends:
                control.should_save = True

    return WithinEpochs()


def sealing_callback() -> Any:
    """A transformers callback that seals each checkpoint after it is saved."""
    from transformers import TrainerCallback

    class Seal(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ranks.wait()  # every rank writes the state of its random numbers
            ranks.from_first(lambda: seal(Path(args.output_dir) / f"checkpoint-{state.global_step}"))

    return Seal()
