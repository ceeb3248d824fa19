"""Building one stage: aside, on what was half-built before, and renamed when all of it is on disk."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.metadata
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup import ranks
from trueup.errors import StageError
from trueup.run import alike, files
from trueup.run.artifacts import Artifact
from trueup.run.identity import MadeOf
from trueup.run.record import read_record
from trueup.run.run_file import RunFile
from trueup.run.section import TrainerSection
from trueup.run.stage import Context, Stage
from trueup.run.standing import Standing, begun

PACKAGES = ("trueup", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "label-studio-sdk")
COMPUTES = ("TRUEUP_CPU", "TRUEUP_GPU")  # variables that choose how a rank computes
MIN_FREE_BYTES = 2**20


def build(
    stage: Stage, standing: Standing, inputs: Mapping[str, Artifact], said: dict[str, Any], *, anew: bool
) -> None:
    """Make a stage in `<stage>.partial`, then give it its place, and what was there another name.

    `said` goes into the record besides what the stage is made of. `anew`: what was half-built from other things is
    deleted; else StageError is raised, as it is on a full disk and where ranks are not alike.

    Of several ranks the first makes it, and the others help, in folders of their own that are thrown away.
    """
    final = standing.chain.path(stage.name)
    out = final.with_name(f"{final.name}.partial")

    def begin() -> MadeOf | None:
        out.mkdir(parents=True, exist_ok=True)
        now = standing.made_of(stage, inputs)
        if _is_complete(stage, standing, out, now):
            return None
        _go_on(stage, standing, out, now, anew=anew)
        standing.hashes.save()  # for the ranks that look next
        return now

    try:
        if (now := ranks.from_first(begin)) is not None:
            if stage.alone:
                ranks.from_first(lambda: _run(stage, standing, inputs, out, now | said))
            else:
                _refuse_unlike(stage, standing, inputs)
                _run(stage, standing, inputs, out, now | said)
            release()
        ranks.from_first(lambda: _finish(standing, final, out))
    except Exception as error:
        if not disk_is_full(error, out):
            raise
        raise StageError(
            str(out), found="the disk is full", next_step=f"free some space, then: trueup {stage.name} RUN.yaml"
        ) from error


def _refuse_unlike(stage: Stage, standing: Standing, inputs: Mapping[str, Artifact]) -> None:
    """Raise StageError where ranks have other versions, files, settings or devices than the first has."""
    if ranks.count() > 1:
        standing.hashes = type(standing.hashes)(standing.hashes.path)  # with what the first rank has hashed by now
        versions = {"Python": platform.python_version(), **_versions()}
        computes: dict[str, Any] = {"model.dtype": standing.chain.run.model.dtype}  # of no fingerprint
        computes |= {name: os.environ.get(name, "not set") for name in COMPUTES}
        alike.refuse_different(stage.name, {"versions": versions} | computes | standing.made_of(stage, inputs))


def _finish(standing: Standing, final: Path, out: Path) -> None:
    """Give what was made in `out` its place."""
    files.remove_kept(out)
    if final.exists():  # only now: a rebuild that fails leaves what was there
        number = 1 + len(list(final.parent.glob(f"{final.name}.old-*")))
        files.rename(final, final.with_name(f"{final.name}.old-{number}"))
    files.rename(out, final)
    for folder in (standing.chain.folder, standing.chain.folder.parent):  # which may be as new
        files.sync(folder)


def _run(stage: Stage, standing: Standing, inputs: Mapping[str, Artifact], out: Path, said: dict[str, Any]) -> None:
    began = time.monotonic()
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()  # of the stage that ran before in this process
    run: RunFile = standing.chain.run
    if not ranks.is_first():
        with tempfile.TemporaryDirectory(prefix="trueup-rank-") as scratch:
            own = Path(scratch) / out.name
            own.mkdir()
            context = Context(run=run, run_dir=standing.chain.folder, out=own, out_of_first=out)
            stage.run(run.section(stage.name), context, **inputs)
        return
    context = Context(run=run, run_dir=standing.chain.folder, out=out)
    metrics = stage.run(run.section(stage.name), context, **inputs)
    files.remove_unfinished(out)
    made = stage.makes(out)
    if stage.on_base:  # the commit of a hub model is known once it is here
        said["base"] = standing.made_of(stage, inputs)["base"]
    record = said | {
        "stage": stage.name,
        "fingerprint": made.fingerprint(),
        "files": made.hashes(),
        "metrics": metrics,
        "wall_s": round(time.monotonic() - began, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **(_device() if stage.on_base else {}),
        **_number_of_ranks(stage),
        "versions": _versions(),
    }
    files.sync_tree(out)
    files.write_json(out / "record.json", record)


def release() -> None:
    """Free what a stage held: a trainer and its model refer to each other, and would stay until Python looks for such.

    The next stage would load its base beside this one's.
    """
    gc.collect()
    if (cuda := _cuda()) is not None:
        cuda.empty_cache()


def _cuda() -> Any:
    """torch.cuda, where this process has imported torch and sees a GPU; else None. A stage of texts imports none."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _device() -> dict[str, Any]:
    """What the stage ran on; of a GPU its compute capability and the most memory it took, in bytes.

    `peak_vram_bytes` is what torch reserved, free blocks included, and `peak_tensor_bytes` what tensors took of that.
    """
    if (cuda := _cuda()) is None:
        return {"device_name": "cpu"}
    return {
        "device_name": cuda.get_device_name(),
        "capability": ".".join(map(str, cuda.get_device_capability())),
        "peak_vram_bytes": cuda.max_memory_reserved(),
        "peak_tensor_bytes": cuda.max_memory_allocated(),
    }


def _is_complete(stage: Stage, standing: Standing, out: Path, now: MadeOf) -> bool:
    """True when all was made and only the last rename was lost."""
    record = read_record(out / "record.json")
    if record is None or standing.differences(stage, record, now, strict=True):
        return False
    return not stage.makes(out).altered()


def _go_on(stage: Stage, standing: Standing, out: Path, now: MadeOf, *, anew: bool) -> None:
    """A half-built stage goes on only when it is still made of the same things; an empty one begins anew."""
    plan = out / "plan.json"
    if begun(out) and plan.exists():
        before = read_record(plan)
        if before is None:
            found = f"{plan} is empty or torn: nothing says what {out.name} was begun from"
        elif issubclass(stage.config, TrainerSection) and (number := before.get("num_ranks", 1)) != ranks.count():
            found = f"{out.name} was begun on {_ranks(number)}, this is {_ranks(ranks.count())}: its steps would differ"
        else:
            found = "; ".join(standing.differences(stage, before, now, strict=True, begun=True))
            found = found and f"{found} since {out.name} was begun"
        if found and not anew:
            raise StageError(
                stage.name,
                found=found,
                next_step=f"undo the change, or begin anew: trueup {stage.name} RUN.yaml --rebuild",
            )
        if found:
            shutil.rmtree(out)
            out.mkdir()
    files.remove_unfinished(out)
    files.write_json(plan, now | _number_of_ranks(stage))


def _number_of_ranks(stage: Stage) -> dict[str, int]:
    """How many ranks build a stage, where there are several."""
    return {"num_ranks": ranks.count()} if ranks.count() > 1 and not stage.alone else {}


def _ranks(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def disk_is_full(error: Exception, out: Path) -> bool:
    """Whether `error` says that there is no space or no quota left, or there is none at `out`.

    safetensors and shutil.copytree say so in words only, and torch.save not at all.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error) or shutil.disk_usage(out).free < MIN_FREE_BYTES


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:  # by name: a list of all that is installed would read hundreds of files at every stage
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
