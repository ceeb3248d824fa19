"""Runs on disk: what is complete, what went stale and why, and building a stage aside before renaming it."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.errors import PreflightError, StageError
from trueup.run.artifacts import Artifact, file_sha256, write_json
from trueup.run.goal import answer_to_goal, goal_lines, verdict
from trueup.run.lock import only_writer
from trueup.run.run_file import RunFile, Source
from trueup.run.stage import Checked, Context, Metrics, Stage

PACKAGES = ("trueup", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "label-studio-sdk")
MIN_FREE_BYTES = 2**20


@dataclass(frozen=True)
class State:
    """Where a stage stands: complete | stale | partial | missing, and why."""

    stage: str
    state: str
    why: str = ""


class Pipeline:
    """One run: its file, its stages, its folder."""

    def __init__(
        self, run: RunFile, stages: tuple[Stage, ...], root: Path = Path("runs"), overrides: tuple[str, ...] = ()
    ) -> None:
        self.run, self.stages, self.folder = run, {stage.name: stage for stage in stages}, root / run.name
        self.overrides = overrides  # of the run file, as typed

    def with_run(self, run: RunFile) -> Pipeline:
        """The same stages and folder with other settings."""
        return Pipeline(run, tuple(self.stages.values()), self.folder.parent, self.overrides)

    def path(self, name: str, number: int | None = None) -> Path:
        """sft belongs to the run; every other stage to a round: round `number`, or the run file's."""
        return self.folder / name if name == "sft" else self.folder / f"round-{number or self.run.round}" / name

    def order(self) -> list[Stage]:
        """The stages `trueup run` executes: of the alignment stages, the chosen one; none whose work is spared."""
        chosen = [s for s in self.stages.values() if not s.alignment or s.name == self.run.method]
        wanted = {source for s in chosen for source in self.needs(s).values()}
        spared = {source for s in chosen for source in s.needs.values()} - wanted
        return [s for s in chosen if s.name not in spared]

    def needs(self, stage: Stage) -> Mapping[str, str]:
        """What the stage needs under this run file: less what a data file stands for, or its config does without."""
        if stage.unless and getattr(self.run.data, stage.unless):
            return {}
        unused = stage.unused(self.run.section(stage.name))
        return {parameter: source for parameter, source in stage.needs.items() if parameter not in unused}

    def execute(self, name: str, rebuild: bool = False) -> bool:
        """Build one stage; False when it is complete already.

        Raises StageError on drift, on a missing input, on a full disk, and while another process builds in this run.
        """
        with only_writer(self.folder, name):
            return self._execute(name, rebuild)

    def _execute(self, name: str, rebuild: bool) -> bool:
        stage, final = self.stages[name], self.path(name)
        inputs = {parameter: self._artifact(source, name) for parameter, source in self.needs(stage).items()}
        made_of = self._made_of(stage, inputs)
        if (final / "record.json").exists():
            changes = self._drift(final, stage, made_of)
            if not changes and not rebuild:
                return False
            if changes and not rebuild:
                raise StageError(
                    name,
                    found="; ".join(changes) + " since this was built",
                    next_step="pass --rebuild, or rename the run",
                )
        out = final.with_name(f"{name}.partial")
        self._build(stage, out, inputs, made_of)
        if final.exists():  # only now: a rebuild that fails leaves what was there
            number = 1 + len(list(final.parent.glob(f"{name}.old-*")))
            final.rename(final.with_name(f"{name}.old-{number}"))
        out.rename(final)
        return True

    def _build(self, stage: Stage, out: Path, inputs: dict[str, Artifact], made_of: dict[str, Any]) -> None:
        began = time.monotonic()
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._refuse_changed_partial(stage, out, made_of)
            context = Context(run=self.run, run_dir=self.folder, out=out)
            metrics = stage.run(self.run.section(stage.name), context, **inputs)
            record = made_of | {
                "stage": stage.name,
                "overrides": list(self.overrides),
                "fingerprint": stage.makes(out).fingerprint(),
                "metrics": metrics,
                "wall_s": round(time.monotonic() - began, 1),
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "versions": _versions(),
            }
            write_json(out / "record.json", record)
        except Exception as error:
            if not _disk_is_full(error, out):
                raise
            raise StageError(
                str(out), found="the disk is full", next_step=f"free some space, then: trueup {stage.name} RUN.yaml"
            ) from error

    def preflight(self) -> Iterator[tuple[str, Metrics | PreflightError | StageError]]:
        """Of each stage that trains: what its preflight measured, or why it would stop, or what it still waits for."""
        for stage in self.order():
            if not stage.trains:
                continue
            try:
                inputs = {
                    parameter: self._artifact(source, stage.name) for parameter, source in self.needs(stage).items()
                }
                with tempfile.TemporaryDirectory() as scratch:
                    out = Path(scratch) / stage.name
                    out.mkdir()
                    context = Context(run=self.run, run_dir=self.folder, out=out, only_preflight=True)
                    stage.run(self.run.section(stage.name), context, **inputs)
            except Checked as checked:
                yield stage.name, checked.metrics
            except (PreflightError, StageError) as error:
                yield stage.name, error

    def _refuse_changed_partial(self, stage: Stage, out: Path, made_of: dict[str, Any]) -> None:
        """A half-built stage goes on only when it is still made of the same things; an empty one begins anew."""
        plan = out / "plan.json"
        if _begun(out) and plan.exists():
            changes = _differences(_read_json(plan), made_of)
            if changes:
                raise StageError(
                    stage.name,
                    found="; ".join(changes) + f" since {out.name} was begun",
                    next_step=f"undo the change, or remove {out}",
                )
        write_json(plan, made_of)

    def missing_files(self, besides: str = "") -> list[str]:
        """What the stages of this run, `besides` left out, will look for and not find: a line for each file."""
        lost: dict[str, str] = {}
        for stage in self.order():
            reads = (*stage.reads, stage.unless) if stage.unless else stage.reads
            for name in () if stage.name == besides else reads:
                for source in self.run.data.sources(name):
                    if not source.on_hub and not source.path.exists():
                        lost.setdefault(f"data.{name}: {source.path}", stage.name)
        return [f"{file}: no such file; {first} reads it" for file, first in lost.items()]

    def states(self) -> list[State]:
        """One state for each stage of this run, in order."""
        found = []
        for stage in self.order():
            final = self.path(stage.name)
            if (final / "record.json").exists():
                inputs = {k: a for k, s in self.needs(stage).items() if (a := self._find(s)) is not None}
                changes = self._drift(final, stage, self._made_of(stage, inputs))
                found.append(State(stage.name, "stale" if changes else "complete", "; ".join(changes)))
            else:
                how_far = self._how_far(final.with_name(f"{stage.name}.partial"))
                found.append(State(stage.name, "partial", how_far) if how_far else State(stage.name, "missing"))
        return found

    def _how_far(self, out: Path) -> str:
        """How far a half-built stage came; empty when it has made nothing yet."""
        progress = self.folder / "store" / "progress.json"
        if out.name == "collect.partial" and out.exists() and progress.exists():
            known = _read_json(progress)
            return f"waiting for labels {known['labelled']}/{known['wanted']}"
        return "type it again to go on" if _begun(out) else ""

    def verdict_lines(self) -> list[str]:
        """The verdict, the goal against it and the report's path; nothing when there is no evaluation."""
        evaluated = self._find("evaluate")
        if evaluated is None:
            return []
        metrics = evaluated.record()["metrics"]
        win_rate = metrics["win_rate_by_reward_model"]
        answer = answer_to_goal(self.run.goal.model_dump(), win_rate, metrics["kl_nats_per_token"])
        return [verdict(win_rate), *goal_lines(answer), f"report: {evaluated.path / 'report.html'}"]

    def _find(self, source: str) -> Artifact | None:
        name, number = self._where(source)
        path = self.path(name, number)
        return self.stages[name].makes(path) if (path / "record.json").exists() else None

    def _where(self, source: str) -> tuple[str, int]:
        """(stage, round) that a source names: "policy" is what this round starts from, "aligned" what it ends with."""
        number = self.run.round
        if source == "policy":
            return (self._winner(number - 1), number - 1) if number > 1 else ("sft", number)
        return (self.run.method if source == "aligned" else source), number

    def _winner(self, number: int) -> str:
        """The alignment stage that made the winner of a round: the run file's method, or the only other one built."""
        aligned = [s.name for s in self.stages.values() if s.alignment]
        built = [name for name in aligned if (self.path(name, number) / "record.json").exists()]
        return built[0] if len(built) == 1 else self.run.method

    def _artifact(self, source: str, wanted_by: str) -> Artifact:
        artifact = self._find(source)
        if artifact is None:
            name, number = self._where(source)
            earlier = f" --set round={number}" if number != self.run.round else ""
            raise StageError(
                wanted_by,
                found=f"{name} is not complete",
                expected=str(self.path(name, number)),
                next_step=f"trueup {name} RUN.yaml{earlier}",
            )
        return artifact

    def _made_of(self, stage: Stage, inputs: dict[str, Artifact]) -> dict[str, Any]:
        data = self.run.data
        read = (*stage.reads, stage.unless) if stage.unless else stage.reads
        files = {name: _identity(data.sources(name)) for name in read}
        start = self.run.adapter.start
        if start is not None and not stage.needs:
            weights = start / "adapter_model.safetensors"
            files["adapter.start"] = file_sha256(weights) if weights.is_file() else "missing"
        return {
            "config": self.run.section(stage.name).model_dump(mode="json"),
            "seed": self.run.seed,
            "model": self.run.model.model_dump(mode="json"),
            "adapter": self.run.adapter.model_dump(mode="json"),
            "system": data.system,
            "few_shot": [shot.model_dump() for shot in data.few_shot],
            "data": files,
            "inputs": {name: artifact.record()["fingerprint"] for name, artifact in inputs.items()},
        }

    def _drift(self, final: Path, stage: Stage, made_of: dict[str, Any]) -> list[str]:
        return _differences(stage.makes(final).record(), made_of)


def _identity(sources: list[Source]) -> str:
    """A hash of what the rows depend on: the files' contents, or the name on the hub; weights and columns."""
    digest = hashlib.sha256()
    for source in sources:
        files = sorted(source.path.rglob("*")) if source.path.is_dir() else [source.path]
        contents = {str(file.relative_to(source.path)): file_sha256(file) for file in files if file.is_file()}
        digest.update(repr((contents or str(source.path), source.weight, sorted(source.columns.items()))).encode())
    return digest.hexdigest()


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`beta 0.1 -> 0.2` for each leaf of `now` that is not as it was."""
    changes = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            changes += _differences(old, {k: value.get(k) for k in {**old, **value}})
        elif old != value:
            changes.append(f"{key} {str(old)[:12]} -> {str(value)[:12]}")
    return changes


def _begun(out: Path) -> bool:
    return any(path.is_file() and path.name != "plan.json" for path in out.rglob("*"))


def _disk_is_full(error: Exception, out: Path) -> bool:
    """safetensors says so in words only, and torch.save not at all."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return "No space left on device" in str(error) or shutil.disk_usage(out).free < MIN_FREE_BYTES


def _read_json(path: Path) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
