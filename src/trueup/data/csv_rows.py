"""Rows of a CSV file, whatever program wrote it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from trueup.data.lines import MAX_BYTES
from trueup.errors import DataError

SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a first line for Excel, of which others know nothing
DELIMITERS = ",;\t|"


class NotCSV(ValueError):
    """Why a row cannot be read, in words."""


def rows(lines: Iterator[str], path: str) -> Iterator[tuple[int, dict[str, str] | NotCSV | None]]:
    """(number of the row's first line, row; or why it cannot be read; or None for a row without any value).

    Raises DataError on a header that cannot be read. A column without a name is called `column 3`, and left out of
    rows in which it is empty.
    """
    csv.field_size_limit(MAX_BYTES)
    first, number = next(lines, ""), 1
    given = SEPARATOR.fullmatch(first)
    if given:
        first, number = next(lines, ""), 2
    delimiter = given[1] if given else max(DELIMITERS, key=first.count)
    reader = csv.reader(_all(first, lines), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(
            f"{path}:{number}",
            found=f"the header is not CSV: {_words(error, first)}",
            expected="one line with the columns' names",
            next_step="correct this line",
        ) from None
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}:{number}",
            found=f"columns named twice: {', '.join(twice)}",
            expected="each once",
            next_step="rename or delete one of them",
        )
    offset = number - 1
    while True:
        begun = reader.line_num + 1 + offset
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begun, NotCSV(f"not CSV ({error})" + HINTS.get(str(error), ""))
            continue
        if not any(field.strip() for field in fields):
            yield begun, None
        elif len(fields) < len(header) or any(field.strip() for field in fields[len(header) :]):
            yield begun, NotCSV(f"{len(fields)} fields, expected {len(header)} as in the header")
        else:
            yield begun, _record(header, fields)


HINTS = {
    "unexpected end of data": "; a quote that opens here is never closed",
    "',' expected after '\"'": '; a quote inside a text is written "", not \\"',
    "';' expected after '\"'": '; a quote inside a text is written "", not \\"',
}


def _record(header: list[str], fields: list[str]) -> dict[str, str]:
    record = {}
    for number, (name, value) in enumerate(zip(header, fields, strict=False), start=1):
        if name or value.strip():
            record[name or f"column {number}"] = value
    return record


def _all(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _words(error: csv.Error, line: str) -> str:
    hint = HINTS.get(str(error), "")
    return f"{error}{hint}, in {line[:60].strip()!r}"
