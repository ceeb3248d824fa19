"""Who judged, as files write it: which texts name nobody, and which names could be one person's."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from trueup.data.faults import RowFault
from trueup.data.values import is_missing, same_text, text_of
from trueup.data.verdicts import as_number, shown
from trueup.errors import DataError, visible

LONGEST = 200  # characters of a name
NOBODY = frozenset({"nan", "NaN", "NAN", "None", "none", "null", "NULL", "NaT", "<NA>", "N/A", "n/a", "#N/A"})
NAMES_NOBODY = "a name that programs write for a missing value: taken as nobody's"
NOT_PRINTABLE = "a name with characters that cannot be printed: they are left out"
MOST_SHOWN = 5


def name_of(value: Any, field: str = "annotator") -> str:
    """A person's name or id; empty where it names nobody. Raises RowFault where it can be no name.

    3, "3" and the 3.0 that programs make of it in a column with gaps are one person. White space is one space, and
    characters that cannot be printed are left out.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        raise RowFault("no name", f"{field} is {value}, expected a name or an id")
    text = text_of(value, field)
    if as_number(value) is not None:
        return re.sub(r"(?<=\d)\.0+$", "", text)
    name = "".join(c for c in " ".join(text.split()) if c.isprintable()).strip()
    if name in NOBODY:
        return ""
    if not name or len(name) > LONGEST:
        found = f"has {len(name):,} characters" if name else f"is {shown(text)}, in which nothing can be printed"
        raise RowFault("no name", f"{field} {found}, expected a name of 1 to {LONGEST} characters")
    return name


def odd(value: Any) -> str:
    """What is odd about a name that a file gives, in words; empty where nothing is."""
    if not isinstance(value, str) or is_missing(value):
        return ""
    name = " ".join(value.split())
    return NAMES_NOBODY if name in NOBODY else "" if name.isprintable() else NOT_PRINTABLE


def refuse_alike(names: Mapping[str, int], where: str) -> None:
    """Raises DataError where names (name -> number of judgements) differ in nothing but case, accents' form or width.

    They may be one person or two: if one, a later judgement replaces an earlier one; if two, both count.
    """
    by_form: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_form[same_text(name)].append(name)
    groups = [sorted(some) for some in by_form.values() if len(some) > 1]
    if groups:
        said = [", ".join(f"{visible(name)} ({_judgements(names[name])})" for name in some) for some in groups]
        more = f"\n  and {len(said) - MOST_SHOWN:,} more" if len(said) > MOST_SHOWN else ""
        raise DataError(
            where,
            found="names of people that differ only in upper and lower case, or in how letters are encoded:"
            + "".join(f"\n  {one}" for one in said[:MOST_SHOWN])
            + more,
            expected="one spelling of each person's name, and names of different people that differ in more",
            next_step="write each person's name in one way, or rename one of two people",
        )


def _judgements(number: int) -> str:
    return "1 judgement" if number == 1 else f"{number:,} judgements"


def counted(names: Iterable[str]) -> Counter[str]:
    """How often each name is there; nobody's is not counted."""
    return Counter(name for name in names if name)
