"""What a stage is made of: its settings, the base, the data, files of code and of text, and the stages before it.

Contents are compared, not places: a project that was moved is the same project, and another base under the same name
is another base.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup.run import base
from trueup.run.artifacts import Artifact
from trueup.run.data_config import DataConfig, Source
from trueup.run.hashes import Hashes
from trueup.run.run_file import ModelConfig, RunFile
from trueup.run.section import Section
from trueup.run.stage import Stage

VERSION = 1  # of records; `earlier` reads those of before
MadeOf = dict[str, Any]  # JSON values only; a record begins with it

OTHERWISE_KEPT = {"demonstrations", "prompts", "held_out", "preferences", "columns", "system", "few_shot"}
SCORED = ("score", "thumbs_up_from", "thumbs_down_to")  # of a source, how its scores are read
TEXT = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt"}


def made_of(run: RunFile, stage: Stage, inputs: Mapping[str, Artifact], folder: Path, hashes: Hashes) -> MadeOf:
    """What `stage` would be made of now; `folder` is the run file's, and paths are relative to it.

    `given` names the settings that the user wrote: the others follow our defaults, which change with releases.
    """
    data, parts = run.data, sections(run, stage)
    apart = {part: frozenset(stage.apart if part == "config" else ()) for part in parts}
    read = (*stage.reads, stage.unless) if stage.unless else stage.reads
    found: MadeOf = {
        "version": VERSION,
        **{part: _plain(section, apart[part]) for part, section in parts.items()},
        "given": {part: sorted(section.model_fields_set - apart[part]) for part, section in parts.items()},
        "seed": run.seed,
        "system": data.system,
        "few_shot": [shot.model_dump() for shot in data.few_shot],
        "data": {name: _rows_of(data.sources(name), folder, hashes) for name in read},
        "read": {
            name: {"path": relative(path, folder), "sha256": _contents(path, hashes)}
            for name, path in sorted(_files(run, stage, folder).items())
        },
        "inputs": {name: artifact.record().get("fingerprint") for name, artifact in inputs.items()},
    }
    if stage.on_base:
        found["base"] = base_made_of(run, folder, hashes)
    return found


def sections(run: RunFile, stage: Stage) -> dict[str, Section]:
    """The sections of the run file that `stage` depends on, by the name they have in a record."""
    always: dict[str, Section] = {"config": run.section(stage.name), "data_config": run.data}
    return always | {"model": run.model, "adapter": run.adapter} if stage.on_base else always


def _plain(section: Section, apart: frozenset[str]) -> dict[str, Any]:
    """The values of a section, less those that are compared by contents and those of `apart`."""
    elsewhere: set[str] = set()
    if isinstance(section, DataConfig):
        elsewhere = OTHERWISE_KEPT
    elif isinstance(section, ModelConfig):  # the base itself is looked at; `dtype` is of the machine, as its GPU is
        elsewhere = {"base", "revision", "dtype"}
    paths = {name for name, value in section if isinstance(value, Path)}
    return section.model_dump(mode="json", exclude=elsewhere | paths | apart)


def _files(run: RunFile, stage: Stage, folder: Path) -> dict[str, Path]:
    """Other files that a stage reads, by what they are to it: code of rewards, a template, an adapter to start from."""
    found = dict(stage.code(run.section(stage.name), folder))
    if stage.on_base:
        found |= {f"model.{name}": value for name, value in run.model if isinstance(value, Path)}
    if stage.on_base and not stage.needs and run.adapter.start is not None:
        found["adapter.start"] = run.adapter.start / "adapter_model.safetensors"
    return found


def _rows_of(sources: list[Source], folder: Path, hashes: Hashes) -> dict[str, Any]:
    """`sha256` covers what the rows depend on: contents, weights and columns, or the name on the hub."""
    digest, described = hashlib.sha256(), []
    for source in sources:
        named = _contained(source)
        files, contents = list(named.values()), {name: hashes.of(file) for name, file in named.items()}
        told = (contents or str(source.path), source.weight, sorted(source.columns.items()))
        scored = {name: value for name in SCORED if (value := getattr(source, name)) is not None}
        digest.update(repr((*told, sorted(scored.items())) if scored else told).encode())
        described.append(
            {
                "path": str(source.path) if source.on_hub else relative(source.path, folder),
                "weight": source.weight,
                "columns": source.columns,
                **scored,
                "files": contents,
                "lines": sum(hashes.lines(file) for file in files) if {f.suffix for f in files} <= TEXT else None,
            }
        )
    return {"sha256": digest.hexdigest(), "sources": described}


def _contained(source: Source) -> dict[str, Path]:
    """The files of a source by the names that count: within the folder, or beside the others that a pattern matches."""
    if source.on_hub:
        return {}
    found, paths = {}, source.paths()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                within = str(file.relative_to(path))
                found[within if paths == [source.path] else f"{path.name}/{within}"] = file
    for scores in () if source.scores is None else (source.scores,):
        for file in sorted(scores.rglob("*")) if scores.is_dir() else [scores]:
            if file.is_file():
                found[f"scores {file.relative_to(scores)}"] = file
    return found


def _contents(path: Path, hashes: Hashes) -> str:
    return hashes.of(path) if path.is_file() else "missing"


def base_made_of(run: RunFile, folder: Path, hashes: Hashes) -> dict[str, Any]:
    """Name and contents of the base: hashes of a folder's files, or the commit that the hub's cache holds.

    A base out of a Python package is what its name says.
    """
    name = run.model.base
    if base.is_package(name):
        return {"name": name}
    if base.is_hub_id(name):
        return {"name": name, "commit": base.cached_commit(name)}
    named: dict[str, Any] = {"name": relative(Path(name), folder)}
    if not Path(name).is_dir():
        return named | {"missing": True}
    return named | {
        "files": {str(file.relative_to(name)): hashes.of(file) for file in base.files(Path(name))},
    }


def relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder` where it is below it or beside it; else whole."""
    seen = os.path.relpath(path, folder)
    return str(path) if seen.startswith("../..") else seen
