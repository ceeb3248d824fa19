"""Files in which people judged: pairs, thumbs and ratings, with each person told apart where the file does so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from trueup.data.dialogue import Messages
from trueup.data.example import Example, Record, Verdict
from trueup.data.faults import RowFault
from trueup.data.names import name_of
from trueup.data.reading import instruction_of, prompt_of, spoken_of
from trueup.data.values import is_missing, refuse_half_characters, text_of
from trueup.data.verdicts import NO_VERDICT, UNKNOWN, as_number, count_of, label_of, scores_differ, shown

ANNOTATOR = re.compile(r"annotator(\d+|[ _-].+)")  # columns that hold what one person said; the name is the person's
RATED_BY = re.compile(r"rating[ _-].+")
WHO = ("annotator", "updated_at", "lead_time", "comment", "reasons", "guidelines")  # of a row that one person gave
TIE = "no preference"
ONE_PERSON = "one person's unknown verdict"  # beside others that can be read: the row stays
_PREFERRED = {0: "tie", 1: "a", 2: "b"}


def pair(record: Record) -> list[Example]:
    """Two answers, the better one named. One score for both is no preference."""
    (before, chosen) = spoken_of(record["chosen"], "chosen")
    (other, rejected) = spoken_of(record["rejected"], "rejected")
    if before != other:
        raise RowFault("chosen and rejected answer different prompts")
    if chosen == rejected:
        raise RowFault("chosen and rejected are the same")
    if not before:
        if is_missing(record.get("prompt")):
            raise RowFault("no prompt", "no prompt: neither a field of that name, nor turns in chosen and rejected")
        before = prompt_of(record["prompt"])
    differ = scores_differ(record)
    said = said_of(record, "comparison", "a" if differ else "tie")
    if not differ:
        return [Example(before, chosen, rejected, votes=(0, 0), verdicts=said, barred=TIE)] if said else []
    counted = {name: record[name] for name in ("votes_for", "votes_against") if not is_missing(record.get(name))}
    if said and counted:
        raise RowFault("two kinds of voters", f"the row has an annotator, and {', '.join(counted)} as well")
    votes = (
        count_of(counted.get("votes_for", 1), "votes_for"),
        count_of(counted.get("votes_against", 0), "votes_against"),
    )
    return [Example(before, chosen, rejected, votes=votes, verdicts=said)]


def judged_pair(record: Record) -> list[Example]:
    """Two answers and what each annotator said: 1, 2, or 0 for a tie (PandaLM).

    An empty answer can be judged, and not learned from.
    """
    answers = ["" if is_missing(record[name]) else text_of(record[name], name) for name in ("response1", "response2")]
    said, unread = _of_each_person(record, ANNOTATOR, "comparison", _preferred)
    first, second = (sum(one.value == side for one in said) for side in ("a", "b"))
    asked = prompt_of(record["prompt"]) if "prompt" in record else instruction_of(record, record.get("input"))
    barred = "empty answer" if "" in answers else TIE if first == second else ""
    if not barred and answers[0] == answers[1]:
        raise RowFault("chosen and rejected are the same")
    chosen, rejected = answers if first >= second else reversed(answers)
    votes = (max(first, second), min(first, second))
    sides = (answers[0], answers[1])
    found = Example(asked, chosen, rejected, votes=votes, verdicts=said, sides=sides, barred=barred, unread=unread)
    found.one_question = True
    return [found]


def thumb(record: Record) -> list[Example]:
    """One answer, good or bad."""
    up = label_of(record["label"])
    asked, completion = _asked(record)
    return [Example(asked, completion, label=up, votes=(int(up), int(not up)), verdicts=said_of(record, "thumb", up))]


def thumbs_by_person(record: Record) -> list[Example]:
    """One answer, and a column for each person's thumb."""
    said, unread = _of_each_person(record, ANNOTATOR, "thumb", label_of)
    asked, completion = _asked(record)
    ups = sum(one.value is True for one in said)
    downs = len(said) - ups
    barred = TIE if ups == downs else ""
    votes = (ups, downs)
    return [Example(asked, completion, label=ups > downs, votes=votes, verdicts=said, barred=barred, unread=unread)]


def counted_thumbs(record: Record) -> list[Example]:
    """One answer, with the numbers of its thumbs."""
    if is_missing(record["up"]) and is_missing(record["down"]):
        raise RowFault(NO_VERDICT, "up and down are missing")
    up, down = count_of(record["up"], "up"), count_of(record["down"], "down")
    if not up and not down:
        raise RowFault(NO_VERDICT, "up and down are 0: nobody said anything")
    if up == down:
        return []
    asked, completion = _asked(record)
    return [Example(asked, completion, label=up > down, votes=(up, down))]


def rating(record: Record) -> list[Example]:
    """One answer, from 1 (bad) to 5 (excellent)."""
    value = rating_of(record["rating"], "rating")
    asked, completion = _asked(record)
    return [Example(asked, completion, verdicts=said_of(record, "rating", value) or [Verdict("rating", value)])]


def ratings_by_person(record: Record) -> list[Example]:
    """One answer, and a column for each person's rating."""
    said, unread = _of_each_person(record, RATED_BY, "rating", rating_of)
    asked, completion = _asked(record)
    return [Example(asked, completion, verdicts=said, unread=unread)]


def _asked(record: Record) -> tuple[Messages, str]:
    completion = spoken_of(record["completion"], "completion")[1]
    return prompt_of(record["prompt"]), completion


def _of_each_person(
    record: Record, people: re.Pattern[str], kind: str, read: Callable[[Any, str], bool | int | str]
) -> tuple[list[Verdict], tuple[str, ...]]:
    """(what each person said, the verdicts that cannot be read, in words). Raises RowFault where nobody said any."""
    said, unread = [], []
    for name, value in _columns(record, people):
        try:
            said.append(Verdict(kind, read(value, name), name_of(name, "the name of a column")))
        except RowFault as fault:
            unread.append(str(fault))
    if unread and not said:
        raise RowFault(UNKNOWN, "; ".join(unread))
    if not said:
        raise RowFault(NO_VERDICT, "nobody said anything: the column of each person is empty")
    return said, tuple(unread)


def _preferred(value: Any, name: str) -> str:
    """The side of a comparison. Raises RowFault on anything but 1, 2 and 0."""
    number = as_number(value)
    if number not in _PREFERRED:
        raise RowFault(UNKNOWN, f"{name} is {shown(value)}, expected 1, 2 or 0 for a tie")
    return _PREFERRED[int(number)]


def _columns(record: Record, people: re.Pattern[str]) -> Iterable[tuple[str, Any]]:
    """The columns of people who said something. Raises RowFault where a name cannot be written."""
    for name, value in record.items():
        if people.fullmatch(name) and not is_missing(value):
            refuse_half_characters(name, "the name of a column")
            yield name, value


def said_of(record: Record, kind: str, value: bool | int | str) -> list[Verdict]:
    """The verdict of the person who gave the row; nothing where the row says nothing of that person."""
    given = {name: record[name] for name in WHO if name != "reasons" and not is_missing(record.get(name))}
    reasons = record.get("reasons")
    if not given and not reasons:
        return []
    seconds = None
    if "lead_time" in given and ((seconds := as_number(given["lead_time"])) is None or seconds < 0):
        raise RowFault("unknown time", f"lead_time is {shown(given['lead_time'])}, expected seconds")
    if reasons is not None and not is_missing(reasons) and not isinstance(reasons, list):
        reasons = [reasons]
    texts = {name: text_of(given[name], name) for name in given.keys() - {"lead_time", "annotator"}}
    why = tuple(text_of(one, "reasons") for one in reasons or () if not is_missing(one))
    return [Verdict(kind, value, name_of(given.get("annotator")), lead_time=seconds, reasons=why, **texts)]


def rating_of(value: Any, name: str) -> int:
    """A whole number from 1 to 5. Raises RowFault on anything else."""
    if is_missing(value):
        raise RowFault(NO_VERDICT, f"{name} is missing")
    number = as_number(value)
    if number is None or number not in range(1, 6):
        raise RowFault(UNKNOWN, f"{name} is {shown(value)}, expected a whole number from 1 to 5")
    return int(number)
