"""Every key of the run file says, in a whole sentence, what it is: with its unit, its choices and its default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCHEMA = json.loads((Path(__file__).parents[2] / "configs" / "run.schema.json").read_text())
UNITS = (  # what a number can be counted in
    *("tokens", "nats", "seconds", "steps", "epochs", "passes", "pairs", "demonstrations", "answers", "completions"),
    *("prompts", "conversations", "people", "batches", "share", "probability", "factor", "ratio", "weight", "norm"),
    *("rank", "times per row", "port", "units of the reward", "without a unit", "the number"),
)


def keys() -> Iterator[tuple[str, bool, dict[str, Any]]]:
    """(section.key, whether it must be given, its schema) of every key; a section is described by its own schema."""
    for name, shape in {"": SCHEMA, **SCHEMA["$defs"]}.items():
        section = name.removeprefix("trueup__stages__").removesuffix("__Config")
        for key, described in shape.get("properties", {}).items():
            itself = SCHEMA["$defs"].get(described.get("$ref", "").rpartition("/")[2], {})
            said = {"description": described.get("description", itself.get("description"))}
            yield f"{section}.{key}".lstrip("."), key in shape.get("required", ()), described | said


KEYS = list(keys())
EACH = pytest.mark.parametrize(("required", "described"), [key[1:] for key in KEYS], ids=[key[0] for key in KEYS])


def kinds(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and those inside it, of unions and of lists."""
    yield described
    for inner in (*described.get("anyOf", ()), *([described["items"]] if "items" in described else ())):
        yield from kinds(inner)


def test_there_are_keys() -> None:
    assert len(KEYS) > 100 and {"seed", "dpo.beta", "DataConfig.prompts"} <= {name for name, *_ in KEYS}


@EACH
def test_a_description_is_a_whole_sentence(required: bool, described: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Z`].*[.)]", described["description"], re.DOTALL)
    assert len(described["description"].split()) >= 4


@EACH
def test_a_number_has_a_unit(required: bool, described: dict[str, Any]) -> None:
    if {"integer", "number"} & {kind.get("type") for kind in kinds(described)}:
        assert any(unit in described["description"].lower() for unit in UNITS)


@EACH
def test_every_choice_is_named(required: bool, described: dict[str, Any]) -> None:
    choices = {choice for kind in kinds(described) for choice in (*kind.get("enum", ()), kind.get("const")) if choice}
    if described.get("title") != "Method":  # the stages, each of which has a section
        assert {choice for choice in choices if f"`{choice}`" not in described["description"]} == set()


@EACH
def test_a_key_has_a_default_and_an_empty_one_is_explained(required: bool, described: dict[str, Any]) -> None:
    if required or "$ref" in described:
        return
    assert "default" in described
    if described["default"] in (None, [], {}):
        assert "default" in described["description"]
