"""Rows of JSON: one a line, in one list, or objects one after another, indented or not."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueup.data.lines import CHUNK, MAX_BYTES
from trueup.errors import DataError

CONTAINERS = ("data", "rows", "examples", "records", "items", "train")  # keys of an object that holds the rows
INDENTED = re.compile(rb'\s*\{[ \t]*\r?\n\s+"')  # an object that goes on on the next line
SPACE = re.compile(r"[ \t\r\n]*")
MARGIN = 64  # characters: an error farther from the end of what was read than this is an error for good


class NotJSON(ValueError):
    """Why a value cannot be read, in words."""


def loads(text: str) -> Any:
    """What orjson refuses: NaN, whole numbers of more than 64 bits, half characters. Raises NotJSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJSON(f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise NotJSON("nested too deeply") from None
    except ValueError:
        raise NotJSON("a number of thousands of digits") from None


def values(stream: Any) -> Iterator[Any]:
    """The items of a list, or objects that follow one another. At most one of them is in memory at a time.

    Raises NotJSON; UnicodeDecodeError where the file is not UTF-8.
    """
    document = _Document(stream)
    if document.next_character() != "[":
        while document.next_character():
            yield document.value()
        return
    document.at += 1
    if document.next_character() == "]":
        document.at += 1
    else:
        while True:
            yield document.value()
            mark = document.next_character()
            document.at += 1
            if mark == "]":
                break
            if mark != ",":
                raise NotJSON("a comma or ] is missing")
    if document.next_character():
        raise NotJSON("there is text after the list's end")


class _Document:
    """Text that is read as far as it is needed; `at` is where the next value begins."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._decode = stream, codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self.text, self.at, self._ended = "", 0, False

    def _read_on(self) -> None:
        chunk = self._stream.read(max(CHUNK, len(self.text) - self.at))  # twice as much each time
        self._ended = not chunk
        self.text, self.at = self.text[self.at :] + self._decode(chunk, final=self._ended), 0

    def next_character(self) -> str:
        """The next one that is not white space, where `at` then is; empty at the end."""
        while True:
            found = SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text) or self._ended:
                return self.text[self.at : self.at + 1]
            self._read_on()

    def value(self) -> Any:
        self.next_character()
        while True:
            try:
                value, end = self._scan(self.text, self.at)
            except json.JSONDecodeError as error:
                unread = self._ended or ("Unterminated" not in error.msg and error.pos < len(self.text) - MARGIN)
                if unread:
                    raise NotJSON(error.msg) from None
            except RecursionError:
                raise NotJSON("nested too deeply") from None
            except ValueError:
                raise NotJSON("a number of thousands of digits") from None
            else:
                if end < len(self.text) or self._ended:
                    self.at = end
                    return value
            if len(self.text) - self.at > MAX_BYTES:
                raise NotJSON(f"one value of more than {MAX_BYTES >> 20} MiB")
            self._read_on()


def rows_in(value: dict[str, Any], path: Path) -> list[Any] | None:
    """The rows of an object such as {"data": [...]}; None where the object is itself a row.

    Raises DataError where it holds columns (as pandas writes by default), or more than one list of rows.
    """
    if len(value) > 1 and all(isinstance(column, dict) and column for column in value.values()):
        keys = [list(column) for column in value.values()]
        if all(one == keys[0] and one[0].isdigit() for one in keys):
            raise DataError(
                str(path),
                found=f"columns ({', '.join(value)}), each as an object",
                expected="a row for each object",
                next_step="in pandas: df.to_json('rows.jsonl', orient='records', lines=True)",
            )
    lists = [key for key, inner in value.items() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
    if not any(key in CONTAINERS for key in lists):
        return None
    besides = [key for key in value if key not in lists]
    if len(lists) > 1 or any(isinstance(value[key], dict | list) for key in besides):
        raise DataError(
            str(path),
            found=f"one object with {', '.join(value)}",
            expected="a list of rows, or a row on each line",
            next_step=f"write the list in {lists[0]} to a file of its own",
        )
    rows: list[Any] = value[lists[0]]
    return rows
