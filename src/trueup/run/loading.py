"""The run file's text and the command line's --set, as values, and where each of them was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueup.errors import ConfigError
from trueup.run.yaml_text import At, NotYAML, cut, read

MAX_BYTES = 256_000
DATA_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".xlsx", ".xls", ".ods", ".txt", ".gz")
SHARED = "x-"  # top-level keys that begin so hold shared values for anchors, as in compose files


@dataclass
class Written:
    """What was written: values, where each key was written in words, and faults found on the way."""

    values: dict[str, Any]
    places: dict[At, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    shared: frozenset[str] = frozenset()  # top-level keys whose values an alias takes up again

    def place(self, at: At) -> str:
        """Where `at` was written, or the nearest thing that holds it or is held by it; empty for a default."""
        for n in range(len(at), 0, -1):
            if at[:n] in self.places:
                return self.places[at[:n]]
        return next((place for known, place in self.places.items() if known[: len(at)] == at), "")


def parse(path: Path) -> Written:
    """The run file as written. Raises ConfigError when it is missing, is no text or no YAML mapping."""
    text = _text(path)
    try:
        made = read(text)
    except NotYAML as error:
        if path.suffix.lower() in DATA_SUFFIXES:
            raise _data_file(path) from None
        raise ConfigError(f"{path}:{error.line}", found=error.found, next_step=error.next_step) from None
    if not isinstance(made.value, dict):
        if path.suffix.lower() in DATA_SUFFIXES:
            raise _data_file(path)
        found = "the file is empty" if made.value is None else "the file is no mapping of keys to values"
        raise ConfigError(str(path), found=found, expected="`name: ...` and sections", next_step=_init_beside(path))
    used = frozenset(str(at[0]) for at in made.aliased if at)
    made.faults += [
        (made.lines[key,], f"{cut(key)} is used by no alias; only shared values with an &anchor go there")
        for key in made.value
        if key.startswith(SHARED) and key not in used
    ]
    values = {key: value for key, value in made.value.items() if not key.startswith(SHARED)}
    return Written(
        values=values,
        places={at: f"line {line}" for at, line in made.lines.items() if not str(at[0]).startswith(SHARED)},
        shared=used,
        faults=[f"line {line}: {found}" for line, found in sorted(made.faults)],
    )


def _text(path: Path) -> str:
    if path.is_dir():
        runs = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        next_step = f"name the file in it, such as {runs[0]}" if runs else f"trueup init {path / 'run.yaml'}"
        raise ConfigError(str(path), found="this is a folder", expected="a run file", next_step=next_step)
    if not path.is_file():
        near = _near(path)
        found = "no such file" if not path.exists() else "not a regular file"
        next_step = f"did you mean {near}? Else: trueup init {path}" if near else f"trueup init {path}"
        raise ConfigError(str(path), found=found, expected="a run file", next_step=next_step)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            if path.suffix.lower() in DATA_SUFFIXES:
                raise _data_file(path)
            raise ConfigError(
                str(path),
                found=f"{size:,} bytes",
                expected=f"a run file of at most {MAX_BYTES:,} bytes",
                next_step="keep data in files of their own and name them in the data section",
            )
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), found=f"it cannot be read ({error.strerror})", expected="a run file") from error
    return _decoded(raw, path)


def _decoded(raw: bytes, path: Path) -> str:
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if path.suffix.lower() in DATA_SUFFIXES:
            raise _data_file(path) from None
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}",
            found=f"no text: byte 0x{raw[error.start]:02x} is not UTF-8",
            expected="a text file in UTF-8",
            next_step="save the file as UTF-8 in your editor",
        ) from None


def _data_file(path: Path) -> ConfigError:
    return ConfigError(
        str(path),
        found=f"this is a data file ({path.suffix})",
        expected="a run file, in YAML, that names it in its data section",
        next_step=f"trueup init run.yaml and set data.demonstrations: {path}; or trueup data check {path}",
    )


def _init_beside(path: Path) -> str:
    return f"trueup init {path.with_name('new.yaml')} writes one to start from"


def _near(path: Path) -> Path | None:
    """An existing run file whose name is close to one that does not exist."""
    from rapidfuzz import fuzz, process

    folder = path.parent
    names = [p.name for p in folder.glob("*.y*ml")][:1000] if folder.is_dir() else []
    found = process.extractOne(path.name, names, scorer=fuzz.ratio, score_cutoff=60)
    return folder / found[0] if found else None


def set_override(written: Written, override: str, option: str | None = None) -> None:
    """Apply `dpo.beta=0.2`; the value is read as YAML. Raises ConfigError when it has another shape.

    `option` is how it was typed where that was not by --set.
    """
    where = cut(option, 80) if option else f"--set {cut(override, 80)}"
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        found = "no '='" if not equals else "no key before '='"
        raise ConfigError(where, found=found, expected="section.key=value", next_step="such as --set dpo.beta=0.2")
    try:
        made = read(text)
    except NotYAML as error:
        found = f"the value is no YAML: {error.found.removeprefix('not YAML: ')}"
        raise ConfigError(
            where, found=found, next_step=f"{error.next_step}; or quote it: --set '{cut(name)}=\"...\"'"
        ) from None
    *parents, last = keys
    here = written.values
    for depth, parent in enumerate(parents, start=1):
        if here.get(parent) is None:
            here[parent] = {}
        inner = here[parent]
        if not isinstance(inner, dict):
            kind = "a list: give the whole of it" if isinstance(inner, list) else "no section"
            section = ".".join(keys[:depth])
            raise ConfigError(where, found=f"{cut(section)} is {kind}", next_step=f"--set {cut(section)}=VALUE")
        here = inner
    here[last] = made.value
    at: At = tuple(keys)
    written.places = {known: place for known, place in written.places.items() if known[: len(at)] != at}
    written.places[at] = where
    written.faults += [f"{where}: {found}" for _, found in made.faults]
