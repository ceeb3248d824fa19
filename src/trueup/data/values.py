"""Single values as programs write them: what is missing, what is text, and lists that were written as a text."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from datetime import datetime
from typing import Any

from trueup.data.faults import RowFault

READS_LIKE_MISSING = frozenset({"nan", "none", "null", "nat", "<na>"})  # what programs write where a value is missing
MAX_LITERAL = 1_000_000  # characters of a list in Python's notation, whose syntax tree takes a hundred times as much
MAX_DEPTH = 32  # of nested values; a tool's schema has less than ten
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
LIST_OF_OBJECTS = re.compile(r"""\s*(?:array\(\s*)?\[\s*\{\s*['"][\w-]+['"]\s*:""")
NAMES_A_ROLE = re.compile(r"""['"](?:role|from)['"]\s*:""")
AS_JSON_LINES = "save the file as JSON Lines, in pandas df.to_json('rows.jsonl', orient='records', lines=True)"


def is_missing(value: Any) -> bool:
    """None, NaN, NaT and text without a visible character: what every writer leaves where it has nothing to write."""
    if isinstance(value, str):
        return not value.strip() or not value.strip().strip(ZERO_WIDTH).strip()
    return value is None or bool(value != value)  # NaN and NaT are not equal to themselves


def is_moment(value: Any) -> bool:
    """Whether it is a text that says a moment in ISO 8601."""
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value.strip()))
    except ValueError:
        return False


def is_empty(value: Any, depth: int = 0) -> bool:
    """Missing, or a list or object without anything in it, or with missing values alone."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth < MAX_DEPTH and all(is_empty(one, depth + 1) for one in inner)
    return is_missing(value)


def text_of(value: Any, name: str, kind: str = "no text") -> str:
    """The stripped text; numbers and truth values are written out. Raises RowFault when there is none, of `kind`."""
    if isinstance(value, str):
        refuse_half_characters(value, name)
        if not is_missing(value):
            return value.strip()
    elif isinstance(value, int | float) and not is_missing(value):
        return str(value) if not isinstance(value, int) or abs(value) < 10**300 else _too_long(name)
    elif not is_missing(value):
        raise RowFault("not a text", f"{name} is of type {type(value).__name__}, expected text")
    raise RowFault(kind, f"{name} has no text")


def _too_long(name: str) -> str:
    raise RowFault("not a text", f"{name} is a number of more than 300 digits, expected text")


def refuse_half_characters(text: str, name: str) -> None:
    """Raises RowFault on a lone surrogate, which has no UTF-8: half of an emoji, from a program that cut UTF-16."""
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise RowFault("half a character", f"{name} holds {half}, half of an emoji that was cut") from None


def list_in(text: str, name: str, *, always: bool) -> list[Any] | None:
    """The list written in `text` as JSON or in Python's notation; None where it is plain text.

    `always`: any list of objects is meant, as in a column of messages; else only one of turns, since a prompt may well
    quote JSON. Raises RowFault when it seems to hold turns, but cannot be read.
    """
    if not LIST_OF_OBJECTS.match(text):
        return None
    value = parsed(text)
    if isinstance(value, list) and (always or all(isinstance(turn, dict) and _names_a_role(turn) for turn in value)):
        return value
    if value is None and (always or NAMES_A_ROLE.search(text)):
        words = f"{name} holds a list written as a text that is neither JSON nor Python; {AS_JSON_LINES}"
        raise RowFault("a list written as a text", words)
    return None


def _names_a_role(turn: dict[Any, Any]) -> bool:
    return "role" in turn or "from" in turn


def parsed(text: str) -> Any:
    """The value written in `text` as JSON, else in Python's notation; None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes in a user's text
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def json_value(value: Any, name: str, depth: int = 0) -> Any:
    """`value` when JSON can hold it. Raises RowFault on other types, on NaN, half characters, and deep nesting."""
    if depth > MAX_DEPTH:
        raise RowFault("nested too deeply", f"{name} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        return {json_key(key, name): json_value(inner, name, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner, name, depth + 1) for inner in value]
    if isinstance(value, str):
        refuse_half_characters(value, name)
    elif not (value is None or isinstance(value, bool | int | float)) or is_missing(value) != (value is None):
        raise RowFault(
            "not JSON inside", f"{name} holds a value of type {type(value).__name__} that JSON does not know"
        )
    return value


def json_key(key: Any, name: str) -> str:
    """`key` when it is a text. Raises RowFault otherwise."""
    if not isinstance(key, str):
        raise RowFault("not JSON inside", f"{name} has a key of type {type(key).__name__}")
    refuse_half_characters(key, name)
    return key


def same_text(text: str) -> str:
    """The form in which two texts are compared: NFKC, without invisible characters, case, and runs of white space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        text = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(text.casefold().split())
