"""Faults of a run file in words: what was found, what was expected, and the nearest name that is known."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trueup.run import synonyms
from trueup.run.loading import Written
from trueup.run.yaml_text import At, cut, shortened

MAX_FAULTS = 20  # of one run file; more are counted

BOUNDS: dict[type, tuple[str, str]] = {
    annotated_types.Gt: ("gt", "greater than"),
    annotated_types.Ge: ("ge", "at least"),
    annotated_types.Lt: ("lt", "less than"),
    annotated_types.Le: ("le", "at most"),
}


def describe(errors: Sequence[Any], written: Written, shape: type[BaseModel]) -> tuple[list[str], int]:
    """(a line for each fault pydantic found, at most MAX_FAULTS; how many more there are). Each key is told once."""
    found: dict[At, Any] = {}
    for error in errors:
        found.setdefault(_real(tuple(error["loc"]), error["type"], written.values), error)
    holders = {at[:n] for at in found for n in range(1, len(at))}  # of a union, the branch that came farthest is told
    told = [(at, error) for at, error in found.items() if at not in holders]
    return [_fault(at, error, written, shape) for at, error in told[:MAX_FAULTS]], len(told[MAX_FAULTS:])


def _real(at: At, kind: str, values: Any) -> At:
    """`at` without what pydantic adds to it: the branches of a union are no keys of the file, nor is the place of an
    item that was written without a list.
    """
    real: At = ()
    for n, key in enumerate(at):
        in_list = isinstance(values, list) and isinstance(key, int) and key < len(values)
        if in_list or (isinstance(values, dict) and key in values):
            values = values[key]
            real = (*real, key)
        elif kind == "missing" and n == len(at) - 1:
            real = (*real, key)
    return real


def _fault(at: At, error: Any, written: Written, shape: type[BaseModel]) -> str:
    place = written.place(at)
    start, name = f"{place}: " if place else "", cut(".".join(map(str, at)))
    if error["type"] == "extra_forbidden":
        kind = "section" if len(at) == 1 and isinstance(error["input"], dict) else "key"
        return f"{start}unknown {kind} {name}{_instead(at, shape, written.shared)}"
    field = _field(shape, at)
    expected = words(field) if field is not None else ""
    if error["type"] == "missing":
        return f"{start}{name} is missing" + (f"; expected: {expected}" if expected else "")
    if error["type"] == "finite_number":
        expected = expected.replace("a number", "a finite number")
    if error["type"] == "value_error":  # one of our own checks
        expected = str(error["ctx"]["error"])
        if isinstance(error["input"], dict):  # of a section whose keys do not go together: a whole sentence
            return f"{start}{name}: {expected}"
    found = shortened(error["input"])
    if error["loc"][-1] == "[key]":  # the name itself, not what it is the name of
        return f"{start}{name}: found {found}; expected: {_of_keys(shape, at)}{_no_space(error['input'])}"
    quotes = isinstance(error["input"], int | float) and expected.startswith("text")
    hint = f"; put it in quotes: '{error['input']}'" if quotes else ""
    return f"{start}{name}: found {found}; expected: {expected or 'another value'}{hint}"


def _of_keys(shape: type[BaseModel], at: At) -> str:
    """What the keys of the mapping that holds `at` are, in words."""
    keys = [get_args(one)[0] for one in _flat(_field(shape, at[:-1])) if get_origin(one) is dict]
    return words(keys[0]) if keys else "another name"


def _no_space(key: object) -> str:
    """YAML reads `{1:dpo}` as one name."""
    return "; put a space after the colon" if isinstance(key, str) and ":" in key else ""


def _instead(at: At, shape: type[BaseModel], shared: frozenset[str]) -> str:
    """What the writer of an unknown key may have meant."""
    from rapidfuzz import fuzz, process

    *parents, last = at
    holder = _model(shape, tuple(parents))
    known = list(holder.model_fields) if holder else []
    section = ".".join(map(str, parents))
    alike = synonyms.same_as(str(last), known, of_sections=not parents)
    if alike is None:
        near = process.extractOne(str(last), known, scorer=fuzz.ratio, score_cutoff=60)
        alike = near[0] if near else None
    if alike is not None:
        return f"; did you mean {alike}?"
    elsewhere = [name for name, field in shape.model_fields.items() if _has(field.annotation, str(last))]
    if elsewhere and section not in elsewhere:
        return f"; it is a key of {', '.join(elsewhere)}"
    if not parents and last in shared:
        return f"; values that aliases share go below a key that begins with x-, such as x-{cut(str(last))}"
    return f"; known: {', '.join(known)}"


def _has(annotation: Any, key: str) -> bool:
    return _is_model(annotation) and key in annotation.model_fields


def _field(shape: type[BaseModel], at: At) -> Any:
    """The field, or the type of the items, that describes `at`; None where nothing is known of it."""
    current: Any = shape
    for key in at:
        models = [one for one in _flat(current) if _is_model(one)]
        items = [get_args(one)[0] for one in _flat(current) if get_origin(one) in (list, tuple)]
        mapped = [get_args(one)[1] for one in _flat(current) if get_origin(one) is dict]
        if isinstance(key, int):
            current = items[0] if items else None
        elif known := [
            one.model_fields[key] for one in [*models, *filter(_is_model, items)] if key in one.model_fields
        ]:
            current = known[0]
        else:
            current = mapped[0] if mapped else None
        if current is None:
            return None
    return current


def _model(shape: type[BaseModel], at: At) -> type[BaseModel] | None:
    """The section or the item that holds the keys below `at`."""
    kinds = _flat(_field(shape, at))
    items = [get_args(one)[0] for one in kinds if get_origin(one) in (list, tuple)]
    return next((one for one in [*kinds, *items] if _is_model(one)), None)


def _flat(kind: Any) -> list[Any]:
    """A type and, of a union or an annotated type, its members."""
    if isinstance(kind, FieldInfo):
        kind = kind.annotation
    if get_origin(kind) is Annotated:
        return _flat(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for member in get_args(kind) for one in _flat(member)]
    return [kind]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def words(kind: Any) -> str:
    """A type in words, with its bounds: `a number greater than 0`, `one of dpo, kto`, `a list of text`."""
    metadata = [*kind.metadata] if isinstance(kind, FieldInfo) else []
    if get_origin(kind) is Annotated:
        metadata += get_args(kind)[1:]
    said = list(dict.fromkeys(_word(one) for one in _flat(kind)))
    bounds = [
        f"{text} {_figure(getattr(bound, name))}"
        for bound in metadata
        for of, (name, text) in BOUNDS.items()
        if isinstance(bound, of)
    ]
    plain = " or ".join([one for one in said if one])
    return " ".join([plain, " and ".join(bounds)]).strip()


def _word(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin in (list, tuple):
        return f"a list, each {words(inner[0])}" if inner else "a list"
    if origin is dict:
        return f"a mapping of names to {words(inner[1])}" if inner else "a mapping"
    if _is_model(kind):
        return f"a mapping with {', '.join(list(kind.model_fields)[:4])}" + (
            "..." if len(kind.model_fields) > 4 else ""
        )
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    plain |= {type(None): "", dict: "a mapping", list: "a list", typing.Any: "any value"}
    return plain.get(kind, "another value")


def _figure(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
