"""A source of the run file becomes examples: its files, its columns, its formats, its weight."""

from __future__ import annotations

import random
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trueup.data import columns, names
from trueup.data.faults import Faults, RowFault
from trueup.data.fields import reads_like_missing, unfolded, unused, with_system_and_tools
from trueup.data.files import DataFile, files_of
from trueup.data.formats import TRACES, Example, Format, Record, detect, prompt_is_repeated
from trueup.data.judged import ONE_PERSON, TIE
from trueup.data.kinds import AS_UTF8
from trueup.data.scores import Scores
from trueup.data.values import is_missing, is_moment
from trueup.data.verdicts import doubt_in, doubt_in_ratings, spelling
from trueup.errors import DataError
from trueup.run.data_config import Source

Place = tuple[int, int]  # number of the file, and of the line (or row) in it
MAX_SHAPES = 1000  # sets of field names remembered: a file has one, or a few
MAX_LABELS = 1000  # spellings of a label remembered


class Reader:
    """Reads one source once. Iterating fills the counts.

    `wanted` is demonstrations, prompts or preferences, or None for whatever the file is good for. `unused` counts the
    rows in which a field says something that is not read; `notes` are odd, for a person to judge.
    """

    def __init__(self, source: Source, wanted: str | None = None, *, keeps_barred: bool = False) -> None:
        """`keeps_barred` gives the rows that people disagree on, and others that only tell how far people agree."""
        self.source, self.wanted, self._keeps_barred = source, wanted, keeps_barred
        self.scores = Scores(source, rows_of)  # of traces
        self.files: list[DataFile] = []
        self.files_not_read: list[str] = []  # beside them in the folder
        self.faults, self.notes = Faults(), Faults()
        self.formats: dict[str, str] = {}  # file -> the format found
        self.num_rows = 0
        self.num_ties = 0  # judged rows without a preference
        self.num_other_turns = 0  # assistant turns before the last one
        self.unused: Counter[str] = Counter()
        self.names = self.scores.users  # who judged -> how often
        self._labels = self.scores.labels
        self._ratings: Counter[str] = Counter()
        self._shapes: dict[tuple[str, ...], Format | None] = {}

    def place(self, place: Place) -> str:
        """`line 17`, with the file's name where there are several."""
        return self.files[place[0]].at(place[1])

    def __iter__(self) -> Iterator[tuple[Place, Example]]:
        """Raises DataError on a file that is lost, whose columns fit no format, or whose labels are unclear."""
        self.files, self.files_not_read = files_of(self.source.path)
        for file in self.files:
            yield from self._of_file(file)
        if not self.num_rows and not self.faults.counts:
            raise DataError(
                str(self.source.path),
                found="no rows",
                expected=f"rows of {self.wanted or 'any format'}",
                next_step="put rows into it, or name another file",
            )
        self.scores.finish()
        self.unused += self.scores.unused
        self.notes.counts += self.scores.odd_names
        names.refuse_alike(self.names, str(self.source.path))
        if doubt := doubt_in(self._labels):
            traced = any(name in TRACES for name in self.formats.values())
            scale = f"{{path: {self.source.path.name}, thumbs_up_from: 4, thumbs_down_to: 2}}"
            raise DataError(
                str(self.source.path),
                found=doubt,
                expected="labels that are thumbs: true/false, 1/0, 1/-1, yes/no, good/bad, up/down",
                next_step=f"say from where on a score is a thumb, such as {scale}"
                if traced
                else "rewrite the label column, and leave out rows without a verdict",
            )

        if doubt := doubt_in_ratings(self._ratings):
            raise DataError(
                str(self.source.path),
                found=doubt,
                expected="whole numbers from 1 (bad) to 5 (excellent)",
                next_step="rewrite the ratings, and leave out rows without one",
            )

    def _of_file(self, file: DataFile) -> Iterator[tuple[Place, Example]]:
        faults, expected, unknown = self.faults, None, None
        given: set[str] = set()
        traces: Format | None = None  # of a file whose first row fits no format: such as a call without an output
        for number, record in file.records(faults):
            if self.source.columns:
                given |= record.keys()
                record = columns.renamed(record, self.source.columns)
            self.num_rows += 1
            found = self._format(record)
            if found is None and expected is None and unknown is None:
                traces = self._traces_in(file)
            known = expected or traces
            if found is None and known is not None and known.trace is not None and known.fields & record.keys():
                record = dict.fromkeys(known.fields) | record  # such as a call that failed, and has no output
                found = self._format(record)
            if expected is None and found is not None:
                expected = found
                self.formats[file.name or str(file.path)] = found.name
                if self.wanted is not None and self.wanted not in found.gives:
                    raise columns.cannot_give(file.path, record, found, self.wanted, self.source.columns)
            if found is None:
                unknown = unknown or record
                names = ", ".join(record) or "no columns"
                faults.add(file.number, number, "unknown fields", f"{file.at(number)}: unknown fields {names}")
                continue
            if expected is not None and found.name != expected.name:
                words = f"{file.at(number)}: {found.name} in a file of {expected.name}"
                faults.add(file.number, number, "another format", words)
                continue
            try:
                yield from (((file.number, number), example) for example in self._examples(file, number, record, found))
            except RowFault as fault:
                faults.add(file.number, number, fault.kind, f"{file.at(number)}: {fault}")
        if expected is None and unknown is not None:
            faults.forget("unknown fields")  # the error below says it of all rows
            raise columns.unknown(file.path, unknown, self.wanted, self.source.columns)
        for ours, theirs in self.source.columns.items():
            if expected is not None and ours in expected.more and theirs not in given:
                self.notes.add(file.number, 0, "column not in the file", f"{file.path.name}: no {theirs} to be {ours}")

    def _traces_in(self, file: DataFile) -> Format | None:
        """The format of the first row of a file that is of any; None where that is none of traces."""
        for _, record in file.records(Faults()):
            if (found := self._format(columns.renamed(record, self.source.columns))) is not None:
                return found if found.trace is not None else None
        return None

    def _examples(self, file: DataFile, number: int, record: Record, found: Format) -> list[Example]:
        """What the row says; fills the counts of what is not read. Raises RowFault."""
        if len(self._labels) < MAX_LABELS:
            self._labels.update(spelling(label) for label in found.labels(record))
        if len(self._ratings) < MAX_LABELS:
            self._ratings.update(spelling(rating) for rating in found.ratings(record))
        record = unfolded(record)
        examples = [with_system_and_tools(record, example) for example in found.examples(record, self.scores)]
        if self.wanted == "demonstrations" and any(one.completion is None for one in examples):
            raise RowFault("empty answer", "ends with the user's turn: no answer")
        if not examples and found.trace is None:
            self.num_ties += 1
        if not self._keeps_barred:
            examples = [one for one in examples if not self._is_barred(file, number, one)]
        self._note_people(file, number, record, found)
        self.names.update(names.counted(one.annotator for example in examples for one in example.verdicts))
        left = unused(record, found, self.wanted)
        if {"prompt", "chosen"} <= found.fields and examples and not prompt_is_repeated(record, examples[0]):
            left.append("prompt (it differs from the turns in chosen)")
        for name in left:
            self.unused[name] += 1
        for example in examples:
            for words in example.unread:
                self.faults.add(file.number, number, ONE_PERSON, f"{file.at(number)}: {words}; the others count")
            self.num_other_turns += sum(turn["role"] == "assistant" for turn in example.prompt)
            if word := reads_like_missing(example):
                words = f"{file.at(number)}: a text is {word!r}, which programs write for a missing value"
                self.notes.add(file.number, number, "reads like a missing value", words)
        return examples

    def _note_people(self, file: DataFile, number: int, record: Record, found: Format) -> None:
        """Note what is odd about the names of those who judged a row, and about when they did."""
        given = [record.get("annotator")] if found.reads("annotator") else []
        given += [name for name in record if found.people is not None and found.people.fullmatch(name)]
        odd = [(words, name) for name in given if (words := names.odd(name))]
        when = record.get("updated_at") if found.reads("updated_at") and found.trace is None else None
        if not is_missing(when) and not is_moment(when):
            odd.append(("updated_at that is no moment in ISO 8601: the order of the rows counts", when))
        for words, value in odd:
            self.notes.add(file.number, number, words, f"{file.at(number)}: {value!r}")

    def _is_barred(self, file: DataFile, number: int, example: Example) -> bool:
        """Whether nothing can be learned from it; counted where that is so."""
        if example.barred == TIE:
            self.num_ties += 1
        elif example.barred:
            self.faults.add(file.number, number, example.barred, f"{file.at(number)}: {example.barred}")
        return bool(example.barred)

    def _format(self, record: Record) -> Format | None:
        shape = tuple(record)
        if shape not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            self._shapes[shape] = detect(record, self.wanted)
        return self._shapes[shape]


def rows_of(path: Path) -> Iterator[Record]:
    """The rows of a file or folder as they are written. Raises DataError where a line is broken."""
    faults = Faults()
    for file in files_of(path)[0]:
        yield from (row for _, row in file.records(faults))
    if lines := faults.lines():
        raise DataError(
            str(path), found="\n  ".join(lines), expected="a row in each line", next_step="correct these lines"
        )


def weighted(reader: Reader, seed: int) -> Iterator[tuple[Place, Example]]:
    """The examples as often as the source's weight says: 0.5 keeps a seeded half, 2 gives each twice."""
    whole, part = divmod(reader.source.weight, 1)
    draw = random.Random(f"{seed} {reader.source.path.name}").random  # noqa: S311 - a choice of rows, not a secret
    for place, example in reader:
        for _ in range(int(whole) + (part > 0 and draw() < part)):
            yield place, example


def refuse(reader: Reader, kinds: frozenset[str] | None = None) -> None:
    """Raise DataError naming the faults, of these kinds or of all, when there are any."""
    if not (lines := reader.faults.lines(kinds)):
        return
    raise DataError(
        str(reader.source.path),
        found="\n  ".join(lines),
        expected=f"{reader.wanted or 'examples'} in every row",
        next_step=way_on(reader),
    )


def way_on(reader: Reader) -> str:
    """What to do about the faults of a source."""
    path = shlex.quote(str(reader.source.path))
    if "not UTF-8" in reader.faults.counts:
        name = shlex.quote(reader.files[0].path.name)
        return f"{AS_UTF8}; or: iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8.csv"
    return f"correct these lines; or leave them out: trueup data prepare {path} --out DIR"


def unusable(reader: Reader) -> Counter[str]:
    """How many rows were not used, by reason."""
    counts = reader.faults.counts + Counter({TIE: reader.num_ties, "blank row": reader.faults.num_blank})
    return +(counts + reader.scores.left)
