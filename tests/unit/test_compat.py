"""Each private name of a library in training/compat.py is where it was, and no other is used."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401 - registers its operators with torch
import pytest

import trueup
from trueup.training import compat
from trueup.training.compat import Private

SOURCES = Path(trueup.__file__).parent
STAGES = Path(importlib.import_module("trueup.stages").__file__ or "").parent


def found(needed: Private) -> Any:
    module, _, path = needed.name.partition(":")
    there: Any = importlib.import_module(module)
    for part in path.split("."):
        there = getattr(there, part)
    return there


def parameters(there: Any) -> list[str]:
    if hasattr(there, "arguments"):  # the schema of a torch operator
        return [argument.name for argument in there.arguments]
    return list(inspect.signature(there).parameters)


def moved(needed: Private) -> list[str]:
    """What is no longer as the table says."""
    try:
        there = found(needed)
    except (ImportError, AttributeError) as error:
        return [f"it is gone: {error}"]
    wrong = []
    if needed.takes and parameters(there)[: len(needed.takes)] != list(needed.takes):
        wrong.append(f"it takes {parameters(there)}, not {list(needed.takes)}")
    lost = [text for text in needed.says if text not in inspect.getsource(there)]
    return [*wrong, *(f"its source no longer says {text}" for text in lost)]


@pytest.mark.parametrize("needed", compat.TABLE, ids=lambda needed: f"{needed.name} {needed.why}")
def test_the_library_has_it(needed: Private) -> None:
    wrong = moved(needed)
    assert not wrong, f"{needed.library} {version(needed.library)} moved {needed.name} ({needed.why}): {wrong}"


@pytest.mark.parametrize(
    "needed",
    [
        Private("trl", "trl:DPOTrainer._no_such", ""),
        Private("trl", "trl.no_such_module:X", ""),
        Private("trl", "trl:DPOTrainer._compute_loss", "", takes=("self", "inputs")),
        Private("trl", "trl:DPOTrainer._compute_loss", "", says=("what no source says",)),
        Private("torch", "torch:ops.bitsandbytes.dequantize_4bit.default._schema", "", takes=("B",)),
    ],
    ids=["gone", "no module", "parameters", "source", "operator"],
)
def test_what_moved_is_seen(needed: Private) -> None:
    assert moved(needed)


PRIVATE = re.compile(r"_[a-z]\w*")
OF_PYTHON = {"_exit", "_replace", "_asdict", "_fields", "_MEIPASS"}


def test_no_other_private_name_is_used() -> None:
    """A private attribute that no class or module of ours makes, or a private method that only a library calls."""
    used: dict[str, str] = {}
    made: set[str] = set()
    methods: dict[str, str] = {}
    for path in sorted({*SOURCES.rglob("*.py"), *STAGES.rglob("*.py")}):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        own = {
            item.name for body in bodies for item in body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        methods |= {name: path.name for name in own if PRIVATE.fullmatch(name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name not in own:
                made.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                made.add(node.id)
            elif isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
                of_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
                if isinstance(node.ctx, ast.Store):
                    made.add(node.attr)
                elif not of_super:
                    used[node.attr] = path.name
    validators = {name for name in methods if _is_decorated(name)}
    theirs = {name: where for name, where in used.items() if name not in made | set(methods)}
    theirs |= {name: where for name, where in methods.items() if name not in used.keys() | validators}
    listed = " ".join(" ".join((needed.name, *needed.says)) for needed in compat.TABLE)
    unlisted = {n: where for n, where in theirs.items() if n not in listed and n not in OF_PYTHON}
    assert not unlisted, "private names of libraries that training/compat.py does not list"
    assert {"_compute_kl_logps", "_prepare_dataset", "_signature_columns", "_init_amx"} <= theirs.keys()


def _is_decorated(name: str) -> bool:
    """Whether a method of ours is called by its decorator, as pydantic's validators are."""
    pattern = re.compile(rf"@\w+(\.\w+)?(\(.*\))?\n(    @\w+\n)?    def {name}\(")
    return any(
        pattern.search(path.read_text(encoding="utf-8"))
        for folder in (SOURCES, STAGES)
        for path in folder.rglob("*.py")
    )
