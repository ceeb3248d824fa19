"""Runs on disk: what is complete, what went stale and why, and building a stage aside before renaming it."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.artifacts import Artifact, file_sha256, write_json
from trueup.config import RunFile, Source
from trueup.errors import StageError
from trueup.evaluation.goal import answer_to_goal, goal_lines
from trueup.stage import Context, Stage

PACKAGES = ("trueup", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "label-studio-sdk")


@dataclass(frozen=True)
class State:
    """Where a stage stands: complete | stale | partial | missing, and why."""

    stage: str
    state: str
    why: str = ""


class Pipeline:
    """One run: its file, its stages, its folder."""

    def __init__(self, run: RunFile, stages: tuple[Stage, ...], root: Path = Path("runs")) -> None:
        self.run, self.stages, self.folder = run, {stage.name: stage for stage in stages}, root / run.name

    def with_run(self, run: RunFile) -> Pipeline:
        """The same stages and folder with other settings."""
        return Pipeline(run, tuple(self.stages.values()), self.folder.parent)

    def path(self, name: str) -> Path:
        """sft belongs to the run; every other stage to a round."""
        return self.folder / name if name == "sft" else self.folder / "round-1" / name

    def order(self) -> list[Stage]:
        """The stages `trueup run` executes: of the alignment stages, the chosen one; none whose work is spared."""
        chosen = [s for s in self.stages.values() if not s.alignment or s.name == self.run.method]
        wanted = {source for s in chosen for source in self.needs(s).values()}
        spared = {source for s in chosen for source in s.needs.values()} - wanted
        return [s for s in chosen if s.name not in spared]

    def needs(self, stage: Stage) -> Mapping[str, str]:
        """The stage's `needs`, or none where a data file of the run stands for them."""
        return {} if stage.unless and getattr(self.run.data, stage.unless) else stage.needs

    def execute(self, name: str, rebuild: bool = False) -> bool:
        """Build one stage; False when it is complete already. Raises StageError on drift or a missing input."""
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
            number = 1 + len(list(final.parent.glob(f"{name}.old-*")))
            final.rename(final.with_name(f"{name}.old-{number}"))
        out = final.with_name(f"{name}.partial")
        out.mkdir(parents=True, exist_ok=True)
        self._build(stage, out, inputs, made_of)
        out.rename(final)
        return True

    def _build(self, stage: Stage, out: Path, inputs: dict[str, Artifact], made_of: dict[str, Any]) -> None:
        self._refuse_changed_partial(stage, out, made_of)
        began = time.monotonic()
        try:
            context = Context(run=self.run, run_dir=self.folder, out=out)
            metrics = stage.run(self.run.section(stage.name), context, **inputs)
            record = made_of | {
                "stage": stage.name,
                "fingerprint": stage.makes(out).fingerprint(),
                "metrics": metrics,
                "wall_s": round(time.monotonic() - began, 1),
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "versions": _versions(),
            }
            write_json(out / "record.json", record)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StageError(
                    str(out), found="the disk is full", next_step=f"free some space, then: trueup {stage.name}"
                ) from error
            raise

    def _refuse_changed_partial(self, stage: Stage, out: Path, made_of: dict[str, Any]) -> None:
        """A half-built stage goes on only when it is still made of the same things; an empty one begins anew."""
        plan = out / "plan.json"
        begun = any(path.is_file() and path != plan for path in out.rglob("*"))
        if begun and plan.exists():
            changes = _differences(_read_json(plan), made_of)
            if changes:
                raise StageError(
                    stage.name,
                    found="; ".join(changes) + f" since {out.name} was begun",
                    next_step=f"undo the change, or remove {out}",
                )
        write_json(plan, made_of)

    def states(self) -> list[State]:
        """One state for each stage of this run, in order."""
        found = []
        for stage in self.order():
            final = self.path(stage.name)
            if (final / "record.json").exists():
                inputs = {k: a for k, s in self.needs(stage).items() if (a := self._find(s)) is not None}
                changes = self._drift(final, stage, self._made_of(stage, inputs))
                found.append(State(stage.name, "stale" if changes else "complete", "; ".join(changes)))
            elif final.with_name(f"{stage.name}.partial").exists():
                found.append(State(stage.name, "partial", self._how_far(stage.name)))
            else:
                found.append(State(stage.name, "missing"))
        return found

    def _how_far(self, name: str) -> str:
        progress = self.folder / "store" / "progress.json"
        if name == "collect" and progress.exists():
            known = _read_json(progress)
            return f"waiting for labels {known['labelled']}/{known['wanted']}"
        return "type it again to go on"

    def goal_lines(self) -> list[str]:
        """The goal against the last evaluation, one line a figure; nothing when there is no evaluation."""
        report = self._find("evaluate")
        if report is None:
            return []
        metrics = report.record()["metrics"]
        goal, win_rate = self.run.goal.model_dump(), metrics["win_rate_by_reward_model"]
        return goal_lines(answer_to_goal(goal, win_rate, metrics["kl_nats_per_token"]))

    def _find(self, source: str) -> Artifact | None:
        name = self.run.method if source == "aligned" else source
        path = self.path(name)
        return self.stages[name].makes(path) if (path / "record.json").exists() else None

    def _artifact(self, source: str, wanted_by: str) -> Artifact:
        artifact = self._find(source)
        if artifact is None:
            name = self.run.method if source == "aligned" else source
            raise StageError(
                wanted_by,
                found=f"{name} is not complete",
                expected=str(self.path(name)),
                next_step=f"trueup {name} RUN.yaml",
            )
        return artifact

    def _made_of(self, stage: Stage, inputs: dict[str, Artifact]) -> dict[str, Any]:
        data = self.run.data
        read = (*stage.reads, stage.unless) if stage.unless else stage.reads
        return {
            "config": self.run.section(stage.name).model_dump(mode="json"),
            "seed": self.run.seed,
            "model": self.run.model.model_dump(mode="json"),
            "adapter": self.run.adapter.model_dump(mode="json"),
            "system": data.system,
            "few_shot": [shot.model_dump() for shot in data.few_shot],
            "data": {name: _identity(data.sources(name)) for name in read},
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


def _read_json(path: Path) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
