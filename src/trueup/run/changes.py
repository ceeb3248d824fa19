"""What changed since a stage was built, in words: a value whole, contents by the name of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from trueup.run.identity import SCORED, VERSION, MadeOf, sections
from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Stage

START = "adapter.start"  # the only file that records of before version 1 keep besides data
LONG = 60  # characters of a value; longer ones get a line of their own
MadeAgain = Callable[[str, str, str], str]  # (input, fingerprint then, fingerprint now) -> words


def changes(
    record: dict[str, Any],
    now: MadeOf,
    run: RunFile,
    stage: Stage,
    folder: Path,
    made_again: MadeAgain,
    *,
    strict: bool = False,
    begun: bool = False,
) -> list[str]:
    """Each difference between a record, or the plan of a half-built stage, and what the stage would be made of now.

    What a record of an earlier version does not hold is taken to be as it was. A setting that the user left to our
    default, then and now, is no difference, unless `strict`: a half-built stage goes on with the same values only, but
    for those that fit the same steps into less memory, and where it is only `begun` for those that it comes to later.
    """
    late = stage.late if begun else ()
    then = earlier(record, stage)
    said: list[str] = []
    for part, section in sections(run, stage).items():
        if part in then:
            name = stage.name if part == "config" else part.removesuffix("_config")
            given = None if strict else {*then.get("given", {}).get(part, ()), *now["given"][part]}
            alike = {*stage.same_steps(then[part], now[part]), *late} if strict and part == "config" else set()
            wanted = {key: value for key, value in now[part].items() if key not in alike}
            said += _values(name, then[part], wanted, _defaults(section), given)
    for key, name in (("seed", "seed"), ("system", "data.system"), ("few_shot", "data.few_shot")):
        if key in then and then[key] != now[key]:
            said.append(_change(name, then[key], now[key]))
    if "base" in now and "base" in then:
        said += base_changes(then["base"], now["base"], folder)
    for name, rows in now["data"].items():
        if (before := then.get("data", {}).get(name)) and before["sha256"] != rows["sha256"]:
            said += _rows(name, before["sources"], rows["sources"])
    if "read" in then:
        known = now["read"] if record.get("version", 0) >= 1 else {k: v for k, v in now["read"].items() if k == START}
        said += _read(*({k: v for k, v in of.items() if not k.startswith(late)} for of in (then["read"], known)))
    if strict:
        gone = [name for name in then.get("inputs", {}) if name not in now["inputs"]]
        said += [f"{name}, which it was made from, is missing" for name in gone]
    for name, fingerprint in now["inputs"].items():
        before = then.get("inputs", {}).get(name)
        if before is not None and before != fingerprint:
            said.append(made_again(name, before, fingerprint))
    return said


def earlier(record: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """A record as version `VERSION` would have written it; settings that equal their default then were not given."""
    if record.get("version", 0) >= VERSION:
        return record
    found = dict(record)
    known = {"config": stage.name, "adapter": "adapter"}
    found["given"] = {
        part: [k for k, v in record.get(part, {}).items() if v != _earlier_defaults()["0"].get(name, {}).get(k, v)]
        for part, name in known.items()
    }
    if isinstance(model := record.get("model"), dict):
        found["model"], found["base"], found["data_config"] = {}, {"name": model.get("base", "")}, {}
    data = {name: {"sha256": digest, "sources": []} for name, digest in record.get("data", {}).items()}
    start = data.pop(START, None)
    found["data"], found["read"] = data, {START: start} if start else {}
    return found


@cache
def _earlier_defaults() -> dict[str, Any]:
    """By version of records: every default that held when they were written."""
    text = files("trueup.run").joinpath("earlier_defaults.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _defaults(section: Section) -> dict[str, Any]:
    return type(section)().model_dump(mode="json")


def _values(
    name: str, then: dict[str, Any], now: dict[str, Any], defaults: dict[str, Any], given: set[str] | None
) -> list[str]:
    said = []
    for key, value in now.items():
        if key not in then:  # an option that came later
            if value != defaults.get(key):
                said.append(_change(f"{name}.{key}", "not set", value))
        elif then[key] != value and (given is None or key in given):
            said.append(_change(f"{name}.{key}", then[key], value))
    return said


def _change(name: str, then: object, now: object) -> str:
    if max(len(str(then)), len(str(now))) > LONG:
        return f"{name} from\n      {then}\n    to\n      {now}"
    return f"{name} {then} -> {now}"


def base_changes(then: dict[str, Any], now: dict[str, Any], folder: Path) -> list[str]:
    """How the base differs from the one in a record; nothing where that cannot be told."""
    if now.get("missing"):  # it cannot be compared; what needs it refuses to begin
        return []
    if "files" in then and "files" in now:
        if then["files"] == now["files"]:
            return []
        return [f"the base {now['name']} has other contents: {_which(then['files'], now['files'])}"]
    if then.get("commit") and now.get("commit"):
        if then["commit"] == now["commit"]:
            return []
        return [
            f"the base is {now['name']} of commit {now['commit']}, and was {then['name']} of commit {then['commit']}"
        ]
    places = [os.path.normpath(folder / str(one["name"])) for one in (then, now)]
    return [] if places[0] == places[1] else [_change("model.base", then["name"], now["name"])]


def _which(then: dict[str, str], now: dict[str, str]) -> str:
    said = [f"{name} is missing" for name in then if name not in now]
    said += [f"{name} is new" for name in now if name not in then]
    said += [f"{name} was changed" for name in now if name in then and then[name] != now[name]]
    return ", ".join(sorted(said))


def _rows(name: str, then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """Of data: which file changed, how many lines it had and has, and what is read of it."""
    if not then:  # before version 1
        return [f"the {name} changed ({', '.join(one['path'] for one in now) or 'not set'})"]
    if len(then) != len(now):
        return [
            _change(f"data.{name}", *(", ".join(one["path"] for one in which) or "not set" for which in (then, now)))
        ]
    said = []
    for before, after in zip(then, now, strict=True):
        if before["files"] != after["files"]:
            lines = before["lines"], after["lines"]
            counted = "" if None in lines else f" ({lines[0]:,} lines, as before)" if lines[0] == lines[1] else ""
            counted = counted or ("" if None in lines else f" ({lines[0]:,} lines -> {lines[1]:,})")
            was = "" if before["path"] == after["path"] else f", {before['path']} before,"
            gone = "is missing" if not after["files"] else f"changed{counted}"
            said.append(f"the {name} file {after['path']}{was} {gone}")
        elif before["path"] != after["path"] and not after["files"]:
            said.append(_change(f"data.{name}", before["path"], after["path"]))
        said += [
            _change(f"{k} of {after['path']}", before.get(k), after.get(k))
            for k in ("weight", "columns", *SCORED)
            if before.get(k) != after.get(k)
        ]
    return said or [f"the {name} changed"]


def _read(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    said = [f"{name} is no longer used" for name in then if name not in now]
    for name, found in now.items():
        if name not in then:
            said.append(f"{name} is new: {found['path']}")
        elif then[name]["sha256"] != found["sha256"]:
            missing = found["sha256"] == "missing"
            said.append(f"{name}: {found['path']} " + ("is missing" if missing else "was changed"))
    return said
