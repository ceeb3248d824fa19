"""YAML with line numbers, overrides, and faults said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from trueup.errors import ConfigError

Lines = dict[tuple[str | int, ...], str]  # where each key was written, in words


def parse(path: Path) -> tuple[dict[str, Any], Lines]:
    """The YAML's values, and the line of each key. Raises ConfigError when it is missing or no YAML mapping."""
    if not path.is_file():
        raise ConfigError(str(path), found="no such file", expected="a run file", next_step="trueup init")
    try:
        tree = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}", found=f"not YAML: {error.problem}") from None
    except (UnicodeDecodeError, ReaderError) as error:
        raise ConfigError(str(path), found=f"no text: {error.reason}", expected="a UTF-8 file") from None
    if not isinstance(tree, CommentedMap):
        raise ConfigError(str(path), found="no mapping", expected="`name: ...` and sections")
    lines: Lines = {}
    return _plain(tree, (), lines), lines


def _plain(tree: Any, at: tuple[str | int, ...], lines: Lines) -> Any:
    if isinstance(tree, CommentedMap):
        for key in tree:
            lines[(*at, str(key))] = f"line {tree.lc.key(key)[0] + 1}"
        return {str(key): _plain(value, (*at, str(key)), lines) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value, (*at, i), lines) for i, value in enumerate(tree)]
    return tree


def set_override(values: dict[str, Any], lines: Lines, override: str) -> None:
    """Apply `dpo.beta=0.2`; the value is read as YAML. Raises ConfigError when it has another shape."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {override}", found="no '='", expected="section.key=value, such as dpo.beta=0.2")
    *parents, last = name.split(".")
    here = values
    for parent in parents:
        if here.get(parent) is None:
            here[parent] = {}
        here = here[parent]
        if not isinstance(here, dict):
            raise ConfigError(f"--set {override}", found=f"{parent} is no section", expected="section.key=value")
    try:
        here[last] = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"--set {override}", found="the value is no YAML", expected="such as dpo.beta=0.2") from error
    lines[tuple(name.split("."))] = f"--set {override}"


def describe(fault: Any, lines: Lines, shape: type[BaseModel]) -> str:
    """One fault in a line: where, what was found, what was expected, the nearest name."""
    where = tuple(fault["loc"])
    known = next((where[:n] for n in range(len(where), 0, -1) if where[:n] in lines), ())
    line = f"{lines[known]}: " if known else ""
    name = ".".join(map(str, where))
    if fault["type"] == "extra_forbidden":
        from rapidfuzz import process

        names = _fields(shape, where[:-1])
        near = process.extractOne(str(where[-1]), names, score_cutoff=60)
        return f"{line}unknown key {name}" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}")
    if fault["type"] == "missing":
        return f"{name} is missing"
    return f"{line}{name}: found {fault['input']!r}; expected: {fault['msg'].removeprefix('Value error, ')}"


def _fields(shape: type[BaseModel], at: tuple[Any, ...]) -> list[str]:
    current: type[BaseModel] = shape
    for key in at:
        if isinstance(key, int):  # a place in a list, whose items the field before it described
            continue
        field = current.model_fields.get(key)
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if model is None:
            break
        current = model
    return list(current.model_fields)
