"""What people said of an answer, in each of the spellings that files have: thumbs, counts, choices, scores."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from trueup.data.faults import RowFault
from trueup.data.values import is_missing


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip() for word in text.split("|"))


UP = _words("""true|yes|y|good|up|thumbs up|thumb up|thumbsup|like|liked|chosen|positive|pos|desirable|correct|accept
    |accepted|👍""")
DOWN = _words("""false|no|n|bad|down|thumbs down|thumb down|thumbsdown|dislike|disliked|rejected|negative|neg
    |undesirable|incorrect|reject|👎""")
SCORES = (  # of the chosen, of the rejected answer
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)
UNKNOWN = "unknown verdict"
NO_VERDICT = "no verdict"  # of a row in which nobody said anything


def thumb(value: Any) -> bool | None:
    """True for a thumb up, False for one down, None where it cannot be told. Numbers: 1 is up, 0 and -1 are down."""
    if isinstance(value, str):
        words = re.sub(r"[\s_-]+", " ", value.strip().casefold()).strip() if not _is_number(value) else value
        if words in UP or words in DOWN:
            return words in UP
    number = as_number(value)
    return None if number not in (1, 0, -1) else number == 1


def as_number(value: Any) -> float | None:
    """The finite number that `value` is, or is written in it; None otherwise."""
    if isinstance(value, str) and not _is_number(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d{1,20}(\.\d{0,20})?\s*", text, re.ASCII) is not None


def count_of(value: Any, name: str) -> int:
    """A whole number of people, 0 or more. Raises RowFault on anything else."""
    number = as_number(value)
    if number is None or number < 0 or number != int(number):
        raise RowFault(UNKNOWN, f"{name} is {shown(value)}, expected a count")
    return int(number)


def scores_differ(record: dict[str, Any]) -> bool:
    """False where both answers of a pair have one score: that is no preference. True without scores.

    Raises RowFault when the rejected answer has the higher score, or a score is no number.
    """
    for chosen, rejected in SCORES:
        values = record.get(chosen), record.get(rejected)
        if all(is_missing(value) for value in values):
            continue
        high, low = (as_number(value) for value in values)
        if high is None or low is None:
            raise RowFault(UNKNOWN, f"{chosen}, {rejected} are {shown(values[0])}, {shown(values[1])}: no numbers")
        if high < low:
            raise RowFault("the rejected answer has the higher score", f"{chosen} {high:g} is below {rejected} {low:g}")
        return high > low
    return True


def label_of(value: Any, name: str = "label") -> bool:
    """The thumb that a label says. Raises RowFault where it says none."""
    if is_missing(value):
        raise RowFault(NO_VERDICT, f"{name} is missing")
    up = thumb(value)
    if up is None:
        raise RowFault(UNKNOWN, f"{name} is {shown(value)}, expected such as true/false, 1/0, 1/-1, yes/no, good/bad")
    return up


def doubt_in(labels: Counter[str]) -> str:
    """Why the labels of one source cannot be trusted as thumbs; empty when they can. Keys are from `spelling`.

    Where a source has labels that say neither up nor down, one whole side may be among them; where it has 0 and -1,
    0 is hardly a thumb down; other numbers are a scale.
    """
    said = {word: thumb(word) for word in labels}
    unread = [word for word, up in said.items() if up is None]
    numbers = {number for word in labels if (number := as_number(word)) is not None}
    scale = sorted(number for number in numbers if number not in (1, 0, -1))
    if scale:
        return f"labels {_listed(labels)}: a scale, not thumbs"
    if {0, -1} <= numbers:
        return f"labels {_listed(labels)}: both 0 and -1, which cannot both be thumbs down"
    if unread and len({up for up in said.values() if up is not None}) < 2:
        return f"labels {_listed(labels)}: {', '.join(unread[:3])} could not be read, which may be a whole side"
    return ""


def doubt_in_ratings(ratings: Counter[str]) -> str:
    """Why the ratings of one source cannot be trusted to go from 1 to 5; empty when they can."""
    numbers = (as_number(word) for word in ratings)
    if any(number is not None and math.isfinite(number) and not 1 <= number <= 5 for number in numbers):
        return f"ratings {_listed(ratings)}: not on a scale from 1 to 5"
    return ""


def spelling(value: Any) -> str:
    """A label as it is counted: numbers alike however they are written."""
    number = as_number(value)
    return f"{number:g}" if number is not None else shown(value).strip("'\"").casefold()


def _listed(labels: Counter[str]) -> str:
    return ", ".join(f"{word} ({number} rows)" for word, number in labels.most_common(5))


def shown(value: Any) -> str:
    """A value for a message, cut to 40 characters."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a very large number"
    return text if len(text) <= 40 else f"{text[:37]}..."
