"""Scores that an application kept beside its traces become thumbs: whose they are, which count, and from where on."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.data.example import Record, Verdict
from trueup.data.names import counted, name_of, odd
from trueup.data.score_rows import READ, Score, about, either, moment, plain, pseudonym
from trueup.data.values import is_empty, is_missing
from trueup.data.verdicts import as_number, spelling, thumb
from trueup.errors import DataError

if TYPE_CHECKING:
    from trueup.run.data_config import Source

BY_MODEL = "score of a model, not of a person"
NEITHER = "score that says neither up nor down"
NO_SCORE = "no score"
UNMATCHED = "score of no row in the file"
MAX_LABELS = 1000  # spellings remembered


class Scores:
    """Tells the scores of one source that count, and which of them are thumbs up.

    `left` counts those that do not count, by reason; `labels` the values that were read as thumbs without a threshold;
    `unused` the fields of scores that say something and are not read; `users` are those who gave them, by the ids of
    the application, and `odd_names` what is odd about these.
    """

    def __init__(self, source: Source, rows: Callable[[Path], Iterable[Record]]) -> None:
        """`rows` reads the rows of a file, and raises DataError where it is broken."""
        self._source, self._rows = source, rows
        self.left: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        self.users: Counter[str] = Counter()
        self.odd_names: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        self._beside: dict[str, list[Record]] | None = None
        self._last: dict[str, tuple[str, str]] | None = None  # trace -> (moment, id) of its last generation

    def verdicts(self, scores: Iterable[Score]) -> list[Verdict]:
        """What people said, of the scores of one answer."""
        found = []
        for one in scores:
            if one.by_model:
                self.left[BY_MODEL] += 1
                continue
            self._names[one.name] += 1
            if self._source.score is not None and one.name != self._source.score:
                self.left[f"another score: {one.name or 'without a name'}"] += 1
                continue
            user = name_of(one.user, "user")
            self.users.update(counted([user]))
            if words := odd(one.user):
                self.odd_names[words] += 1
            said = functools.partial(Verdict, annotator=pseudonym(user), updated_at=one.when, comment=one.comment)
            if one.correction:
                found.append(said("edit", one.correction))
            up = self._is_up(one.value)
            if up is not None:
                found.append(said("thumb", up))
            elif not one.correction:
                self.left[NEITHER] += 1
        return found

    def _is_up(self, value: Any) -> bool | None:
        up_from, down_to = self._source.thumbs_up_from, self._source.thumbs_down_to
        if up_from is None or down_to is None:
            if not is_missing(value) and len(self.labels) < MAX_LABELS:
                self.labels[spelling(value)] += 1
            return thumb(value)
        number = as_number(value)
        if number is None or down_to < number < up_from:
            return None
        return number >= up_from

    def beside(self, *keys: str) -> list[Record]:
        """The rows of the source's `scores` file about whatever bears one of these ids; each row is given once."""
        if self._beside is None:
            self._beside = defaultdict(list)
            for row in self._rows(self._source.scores) if self._source.scores is not None else ():
                self._beside[about(row)].append(row)
                self.unused.update(f"scores: {name}" for name in row.keys() - READ if not is_empty(row[name]))
        return [row for key in keys for row in self._beside.pop(key, [])]

    def ends_trace(self, observation: Record) -> bool:
        """Whether it is the last generation of its trace: what people saw, and what a score of the trace is about."""
        if self._last is None:
            self._last = {}
            for row in self._rows(self._source.path) if self._source.scores is not None else ():
                if str(row.get("type")).upper() == "GENERATION":
                    get = either(row)
                    mine = (moment(get("end_time")) or moment(get("start_time")), plain(row.get("id")))
                    trace = plain(get("trace_id"))
                    self._last[trace] = max(mine, self._last.get(trace, mine))
        trace = plain(either(observation)("trace_id"))
        return trace not in self._last or self._last[trace][1] == plain(observation["id"])

    def finish(self) -> None:
        """Count what no row asked for. Raises DataError where it is not clear which scores are meant."""
        if self._beside is not None and (lost := sum(map(len, self._beside.values()))):
            self.left[UNMATCHED] += lost
        asked, names = self._source.score, ", ".join(f"{name or '(none)'} ({n:,})" for name, n in self._names.items())
        if asked is not None and self._names and asked not in self._names:
            raise DataError(
                str(self._source.path),
                found=f"no score named {asked}; there are {names}",
                next_step="name one of these: score: NAME",
            )
        if asked is None and len(self._names) > 1:
            raise DataError(
                str(self._source.path),
                found=f"scores of several names: {names}",
                expected="one of them, since they may mean different things",
                next_step=f"name it: {{path: {self._source.path.name}, score: {next(iter(self._names))}}}",
            )
