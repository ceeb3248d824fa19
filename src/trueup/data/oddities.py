"""What is odd about who judged a row, when, and how long it took: no reason to lose the verdict, and noted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trueup.data.formats import Format, Record
from trueup.data.judged import COUNTS, num_missing, seconds_of
from trueup.data.names import odd
from trueup.data.values import is_missing, is_moment


def odd_in(record: Record, found: Format) -> Iterator[tuple[str, Any]]:
    """(what is odd, in words; the value) of a row of this format; traces keep such things elsewhere."""
    if found.trace is not None:
        return
    names = [record.get("annotator")] if found.reads("annotator") else []
    names += [name for name in record if found.people is not None and found.people.fullmatch(name)]
    yield from ((words, name) for name in names if (words := odd(name)))
    when, took = (record.get(name) if found.reads(name) else None for name in ("updated_at", "lead_time"))
    if not is_missing(when) and not is_moment(when):
        yield "updated_at that is no moment in ISO 8601: the order of the rows counts", when
    if not is_missing(took) and seconds_of(took) is None:
        yield "lead_time that is no number of seconds: left out", took
    if found.fields.issuperset(COUNTS) and num_missing(record) == 1:
        yield "up or down is missing beside the other: taken as 0", None
